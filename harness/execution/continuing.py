"""Whether a run may continue what it began: only on the same data and files, and by the same code and numerics."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from subnetbench.harness.core.errors import RunFailure
from subnetbench.harness.data.content import DataContent
from subnetbench.harness.data.described import Contents
from subnetbench.harness.data.items import Items, changes
from subnetbench.harness.execution.slurm.job_plan import CodeChanges
from subnetbench.harness.method.context import Inputs
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.differences import ABSENT, Difference, differences, unknown
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import CodeRead, Provenance
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state_file import read_header

AFRESH = "`--rerun` starts it afresh"
UNKNOWN_CODE = "unknown"

_log = logging.getLogger(__name__)


def begun_on(folder: RunFolder) -> Provenance | None:
    """What the trained model or the checkpoint of a run stands on; None where there is neither.

    None too where it cannot be read: that it is damaged is said by whoever opens it.
    """
    for path in (folder.model_file, folder.last_checkpoint):
        if path.exists():
            header = read_header(path)
            return Provenance.from_json(header.get("provenance")) if header else None
    return None


def finished_on(folder: RunFolder) -> Provenance:
    """What a finished run stands on: as its folder says, or else its model file, or its record; which is said.

    All is unknown of runs that earlier versions made.
    """
    said = folder.provenance()
    if said is not None:
        return said
    for source, read in (("model file", begun_on), ("record", _recorded)):
        found = read(folder)
        if found is not None:
            if found != Provenance():
                _log.warning("%s cannot be read: taken from the %s of the run", folder.provenance_file, source)
            return found
    return Provenance()


def _recorded(folder: RunFolder) -> Provenance | None:
    """What the record of a finished run says that it stands on; None where it is not there, or not valid."""
    file = folder.record_file()
    if file is None or not file.is_file():
        return None
    texts = read_records(file, ["provenance_json"]).runs["provenance_json"].to_pylist()
    return Provenance.from_text(texts[0]) if texts else None


def continued(before: Provenance, now: Provenance, contents: Contents, results: Path, code: CodeChanges) -> Provenance:
    """What a run stands on that continues what it began on `before`.

    Args:
        before: What its checkpoint or model stands on.
        now: What it would stand on if it began now.
        contents: What its data hold now.
        results: The results folder, which has the lists of image files.
        code: Whether other code is allowed; then the code of both parts is recorded.

    Raises:
        RunFailure: Data, files, code or numerics are others; the message says which and how.
    """
    found = {part: [each for each in differences(before, now) if each.part == part] for part in ("code", "numerics")}
    if changed := data_changes(before.data, contents, results):
        raise RunFailure(f"the data changed since this run began: {changed}; {AFRESH}", reason="data-changed")
    if changed := file_changes(before, now):
        raise RunFailure(f"what this run reads changed since it began: {changed}; {AFRESH}", reason="files-changed")
    if found["numerics"]:
        changed = "; ".join(map(str, found["numerics"]))
        raise RunFailure(
            f"numbers would be computed in another way than when this run began: {changed}; {AFRESH}",
            reason="numerics-changed",
        )
    if found["code"] and code == "refuse":
        changed = code_changes(before.code, now.code)
        raise RunFailure(
            f"this run began under other code, of {changed}; {AFRESH}, `--code-changes allow` resumes it nevertheless",
            reason="code-changed",
        )
    _say(before, now)
    return replace(now, code=_both(before.code, now.code))


def data_changes(before: DataContent | None, now: Contents, results: Path, only: str = "") -> str:
    """How the splits (or only one, with its gallery) differ, with both digests and, of files, which; empty: they do not."""
    if before is None:
        return ""
    texts = []
    for name in dict.fromkeys([*before.splits, *now.content.splits]):
        old, new = before.splits.get(name), now.content.splits.get(name)
        if old == new or (only and name not in (only, f"{only} gallery")):
            continue
        listed = Items.read(results, old.digest) if old else None
        items = now.items.get(name)
        detail = f" ({changes(listed, items)})" if listed and items else ""
        texts.append(f"{name} was {old or ABSENT}, is {new or ABSENT}{detail}")
    return "; ".join(texts)


def file_changes(before: Provenance, now: Provenance) -> str:
    """Which files and inputs differ, with both digests; empty where none does. Inputs are compared by their weights."""
    found = [each for each in differences(before, now) if each.part == "files" and not each.name.startswith("input ")]
    if before.files is not None and now.files is not None:
        for role, old in before.files.inputs.items():
            new = now.files.inputs.get(role)
            if new is not None and old.weights != new.weights:
                found.append(
                    Difference("files", f"input {role}", f"{old.run} {old.weights}", f"{new.run} {new.weights}")
                )
    return "; ".join(map(str, found))


def code_changes(before: CodeRead | None, now: CodeRead | None) -> str:
    """The modules that differ, in words, as far as they are known."""
    if before is None or now is None:
        return ""
    names = dict.fromkeys([*before.modules, *now.modules])
    changed = [name.removeprefix("subnetbench.") for name in names if before.modules.get(name) != now.modules.get(name)]
    if not changed or not before.modules:
        parts = {"the method": "method", "the data set": "dataset", "training and evaluation": "harness"}
        return ", ".join(text for text, part in parts.items() if getattr(before, part) != getattr(now, part))
    return ", ".join(changed[:5]) + (f" and {len(changed) - 5} others" if len(changed) > 5 else "")


def check_inputs(spec: RunSpec, inputs: Inputs, contents: Contents, results: Path) -> None:
    """Compare the data of a run with those that its inputs were trained on, where both name the same.

    Raises:
        RunFailure: An input was trained on what these data were before they changed.
    """
    for role, value in inputs.items():
        given: Any
        for given in value if isinstance(value, list) else [value]:
            own: RunSpec = given.spec
            if (own.dataset, own.task, own.data) != (spec.dataset, spec.task, spec.data):
                continue
            if changed := data_changes(given.provenance.data, contents, results):
                raise RunFailure(
                    f"the input {role} ({own.run_id}) was trained before the data changed: {changed}; train it again",
                    reason="data-changed",
                )


def check_files(spec: RunSpec, now: Mapping[str, str]) -> None:
    """Compare the files that fields name with those that the run's id stands for.

    Raises:
        RunFailure: One has another content: that would be another run.
    """
    for name, digest in spec.files.items():
        found = now.get(name, ABSENT)
        if not digest.startswith(found):
            raise RunFailure(
                f"{name}: {spec.config.get(name)} is not the file that this run is named after: its digest was "
                f"{digest[: len(found)]}, and is {found}; the same command with this file is another run",
                reason="files-changed",
            )


def _both(before: CodeRead | None, now: CodeRead | None) -> CodeRead | None:
    if now is None:
        return None
    if before is None:
        return replace(now, resumed=(UNKNOWN_CODE,))
    same = (before.method, before.dataset, before.harness) == (now.method, now.dataset, now.harness)
    return replace(now, resumed=before.resumed if same else (*before.resumed, before.digest))


def _say(before: Provenance, now: Provenance) -> None:
    if missing := unknown(before, now):
        _log.warning("it is not known on which %s this run began: an earlier version started it", ", ".join(missing))
    for each in differences(before, now):
        if each.part == "environment":
            _log.warning("resumed with another %s", each)
