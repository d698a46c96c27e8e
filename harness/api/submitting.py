"""Handing runs to SLURM, and cancelling them. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.core.registry import loaded_plugins
from subnetbench.harness.execution.plan import Plan
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.profile import read_cluster
from subnetbench.harness.execution.slurm.resources import Resources, SweepResources, resources_for
from subnetbench.harness.execution.slurm.settle import cancel_all
from subnetbench.harness.execution.slurm.submit import Outcome, Submitter
from subnetbench.harness.method.registry import METHODS
from subnetbench.harness.runs.spec import RunSpec


@dataclass(frozen=True)
class SlurmOptions:
    """How runs are submitted.

    `cluster` is a site profile by name or file, `resources` the section of a sweep file, `own` what single runs ask
    for, by run id.
    """

    cluster: str | None = None
    code_changes: Literal["refuse", "allow"] = "refuse"
    resources: Mapping[str, Any] = field(default_factory=dict)  # open: parsed with the cluster's profile
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class SubmittedArray:
    """One job array: its number (empty in a dry run), the run ids of each job, and its `#SBATCH` lines."""

    job: str
    jobs: tuple[tuple[str, ...], ...]
    directives: tuple[str, ...]


@dataclass(frozen=True)
class Submission:
    """What was handed to SLURM or, with `dry_run`, would be.

    `skipped` maps reasons to run ids, `released` are jobs that SLURM had held, `faults` what SLURM refused, and
    `statuses` say of each run that is not finished what became of it.
    """

    results: Path
    dry_run: bool
    arrays: tuple[SubmittedArray, ...]
    released: tuple[str, ...]
    skipped: Mapping[str, tuple[str, ...]]
    faults: tuple[str, ...]
    statuses: Mapping[str, str]


def submit_plan(
    plan: Plan,
    results: Path,
    name: str,
    settings: RunSettings,
    options: SlurmOptions,
    *,
    dry_run: bool = False,
) -> Submission:
    """Submit what a plan has left to do, each run at most once.

    Raises:
        UserError: A profile or resource cannot be used, or half-finished runs would resume under other code.
        SchedulerError: SLURM does not say what is queued.
    """
    profile = read_cluster(options.cluster)
    section = SweepResources.parse(dict(options.resources), where="resources")
    known = [entry.name for entry in METHODS.listing()]
    for method in section.methods:
        if method not in known:
            raise UserError(str(unknown("method", method, known)), field="resources.methods")

    def resources_of(spec: RunSpec) -> Resources:
        found = resources_for(spec, profile, section, options.own.get(spec.run_id))
        found.tasks_per_node(spec.compute.processes)
        return found

    submitter = Submitter(
        results,
        name,
        replace(settings, plugins=tuple(loaded_plugins())),
        profile,
        resources_of,
        code_changes=options.code_changes,
    )
    outcome = submitter.dry_run(plan) if dry_run else submitter.submit(plan)
    return _submission(plan, outcome, submitter, dry_run)


def cancel(results: Path | str) -> list[str]:
    """Cancel all jobs of a sweep or tuning; runs write a checkpoint, and the same command resumes them later.

    Args:
        results: Results folder, or the name of one in `results/`.

    Returns:
        The numbers of the jobs that were cancelled.

    Raises:
        UserError: There is no such folder.

    Example:
        >>> from subnetbench.harness import api
        >>> api.cancel("quickstart")
        []
    """
    folder = Path(results) if Path(results).is_dir() else Path("results") / results
    if not folder.is_dir():
        raise UserError("there is no such folder", field="SWEEP", value=str(results))
    # The driver of a tuning first, lest it replace its trials.
    folders = (folder.resolve(), folder.resolve() / "trials")
    return [job for each in folders for job in cancel_all(Ledger(each))]


def _submission(plan: Plan, outcome: Outcome, submitter: Submitter, dry_run: bool) -> Submission:
    arrays = []
    for submission, array in outcome.arrays:
        if dry_run or submission.state == "submitted":
            script = submitter.script(submission, array, {}) if dry_run else ""
            directives = tuple(line for line in script.splitlines() if line.startswith("#SBATCH"))
            arrays.append(SubmittedArray(submission.job, tuple(map(tuple, submission.jobs)), directives))
    failed = [run_id for run_id in plan.failed if run_id not in outcome.in_queue]
    skipped = {
        "finished before": outcome.finished,
        "in the queue already": outcome.in_queue,
        "failed before (--retry-failed)": failed,
        "blocked by a failed run": outcome.blocked,
        "beyond the site's number of jobs; the same command submits them later": outcome.left_out,
    }
    statuses = dict.fromkeys((spec.run_id for spec in plan.specs), "not submitted")
    for status, run_ids in (
        ("finished", outcome.finished),
        ("queued", outcome.in_queue),
        ("failed", failed),
        ("blocked", outcome.blocked),
        ("left out", outcome.left_out),
        ("to do" if dry_run else "submitted", [run_id for array in arrays for job in array.jobs for run_id in job]),
    ):
        statuses |= dict.fromkeys(run_ids, status)
    return Submission(
        submitter.results,
        dry_run,
        tuple(arrays),
        tuple(outcome.released),
        {reason: tuple(run_ids) for reason, run_ids in skipped.items() if run_ids},
        tuple(outcome.faults),
        statuses,
    )
