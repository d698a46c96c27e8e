"""What is left to do of many runs, and in which order; where their results go."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from subnetbench.harness.core.errors import ChangedError, UserError
from subnetbench.harness.core.files import LockHeld, file_lock
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec

if TYPE_CHECKING:
    from subnetbench.harness.execution.standing import Standing

STANDS_ON_OTHER = ("data-changed", "files-changed", "code-changed", "numerics-changed")
"""Reasons of failures of runs that would have continued on something else than they began on."""
_NAMED = 3


@dataclass
class Plan:
    """The runs of a sweep with their inputs, each once, and those of them that are left to do.

    `afresh` are those of `todo` whose earlier results are given up first; `notes` are for people.
    """

    specs: list[RunSpec]
    todo: list[RunSpec] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    afresh: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_runs(
    specs: Iterable[RunSpec],
    results: Path,
    *,
    retry_failed: bool = False,
    rerun: bool = False,
    data_root: Path | None = None,
    code_changes: str = "refuse",
) -> Plan:
    """Inputs before the runs that start from them; finished runs are left alone, failed ones unless retried.

    A run whose process was killed is no failed one: it resumes.

    Args:
        specs: The runs.
        results: The results folder.
        retry_failed: Do failed runs again.
        rerun: Do those again that stand on other data, files or code than are here now, and what starts from them.
        data_root: Folder of data sets, to see what runs stand on; None: that is not looked at.
        code_changes: `allow`: half-finished runs may resume under other code.

    Raises:
        ChangedError: Without `rerun`: data or files of a run have changed, or the code of one that is half-finished.
    """
    ordered = {each.run_id: each for spec in specs for each in (*spec.dependencies(), spec)}
    plan = Plan(list(ordered.values()))
    states = {run_id: RunFolder(results, run_id).state() for run_id in ordered}
    failed = {
        run_id
        for run_id, state in states.items()
        if state == "failed" and not retry_failed and not was_killed(RunFolder(results, run_id))
    }
    if data_root is not None and any(state != "waiting" for state in states.values()):
        from subnetbench.harness.execution.standing import examine  # late: launchers import no torch

        looked_at = [spec for spec in plan.specs if rerun or spec.run_id not in failed]
        _heed(plan, examine(looked_at, results, data_root), states, results, rerun, code_changes)
    for spec in plan.specs:
        if spec.run_id in plan.afresh:
            plan.todo.append(spec)
        elif states[spec.run_id] == "finished":
            plan.finished.append(spec.run_id)
        elif spec.run_id in failed:
            plan.failed.append(spec.run_id)
        else:
            plan.todo.append(spec)
    return plan


def _heed(
    plan: Plan, standing: "Standing", states: Mapping[str, str], results: Path, rerun: bool, code_changes: str
) -> None:
    """Note in a plan, or refuse, what is no longer as it was."""
    plan.notes += _notes(standing)
    if rerun:
        plan.afresh = _afresh(plan.specs, results, standing)
        return
    _refuse(standing, {run_id for run_id, state in states.items() if state == "finished"}, code_changes)
    plan.notes += _of_other_code(standing, states)


def was_killed(folder: RunFolder) -> bool:
    """Whether a run ended because a process of it was killed, which is no fault of the run."""
    failure = folder.failure()
    return failure is not None and failure.reason == "killed"


def begin_afresh(plan: Plan, results: Path) -> None:
    """Give up what the runs that are to begin afresh have; their records and logs stay.

    Raises:
        UserError: Another process works on one of them.
    """
    for run_id in plan.afresh:
        folder = RunFolder(results, run_id)
        try:
            with file_lock(folder.lock_file, 0.0):
                folder.forget()
        except LockHeld:
            raise UserError("another process works on this run", field="--rerun", value=run_id) from None
        except OSError as error:
            raise UserError(f"cannot be cleared: {error.strerror}", field=str(folder.path)) from None


def _afresh(specs: Iterable[RunSpec], results: Path, standing: "Standing") -> list[str]:
    """Runs that stand on something else, and all that have begun and start from one of them, in order."""
    changed = {*standing.data, *standing.files, *standing.code}
    for spec in specs:
        folder = RunFolder(results, spec.run_id)
        failure = folder.failure()
        refused = failure is not None and failure.reason in STANDS_ON_OTHER
        has_begun = folder.finished_file.exists() or folder.model_file.exists() or folder.last_checkpoint.exists()
        if refused or (has_begun and any(each.run_id in changed for each in spec.dependencies())):
            changed.add(spec.run_id)
    return [spec.run_id for spec in specs if spec.run_id in changed]


def _refuse(standing: "Standing", finished: set[str], code_changes: str) -> None:
    for what, found in (("data", standing.data), ("files", standing.files)):
        if found:
            raise ChangedError(
                f"the {what} of {_count(found)} changed since: {next(iter(found.values()))} ({_names(found)}); "
                "--rerun trains again what stands on the earlier ones"
            )
    begun = {run_id: changed for run_id, changed in standing.code.items() if run_id not in finished}
    if begun and code_changes == "refuse":
        raise ChangedError(
            f"{_count(begun)} would resume under other code, of {next(iter(begun.values()))} ({_names(begun)}); "
            "--rerun starts afresh, --code-changes allow resumes nevertheless"
        )


def _notes(standing: "Standing") -> list[str]:
    notes = [
        f"whether the data of {_count(ids)} are as they were is not known: {reason}"
        for reason, ids in standing.unseen.items()
    ]
    if standing.unknown:
        ids = standing.unknown
        notes.append(
            f"on which data and code {_count(ids)} {'stands' if len(ids) == 1 else 'stand'} is not known: made by an "
            "earlier version, or what says so (provenance.json, model file, record, checkpoint) cannot be read"
        )
    return notes


def _of_other_code(standing: "Standing", states: Mapping[str, str]) -> list[str]:
    found = {run_id: changed for run_id, changed in standing.code.items() if states[run_id] == "finished"}
    by_change: dict[str, list[str]] = {}
    for run_id, changed in found.items():
        by_change.setdefault(changed, []).append(run_id)
    return [
        f"{_count(ids)} finished under other code, of {changed}, and left as they are; --rerun runs them again"
        for changed, ids in by_change.items()
    ]


def _count(runs: "Mapping[str, str] | list[str]") -> str:
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}"


def _names(runs: Iterable[str]) -> str:
    names = list(runs)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def results_folder(name: str, given: str | Path | None) -> Path:
    """Where a sweep or run writes; raises `UserError` when that folder cannot be written."""
    folder = Path(given) if given else Path("results") / name
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder cannot be written: {error.strerror}", field=str(folder)) from None
    if not os.access(folder, os.W_OK):
        raise UserError("the output folder is read-only", field=str(folder))
    return folder.resolve()
