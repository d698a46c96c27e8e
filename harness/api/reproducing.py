"""Repeat a recorded run: check what it depends on, run it in a fresh folder, compare every score bit for bit."""

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import torch

from subnetbench.harness.api.lookup import RunReference
from subnetbench.harness.api.reproduction_checks import Check, checks_of, commit_check, here_for
from subnetbench.harness.core import environment
from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.core.metrics import COUNTS
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.execution.local import run_locally
from subnetbench.harness.execution.plan import plan_runs, results_folder
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.records.item_checks import differing_items
from subnetbench.harness.records.items_file import items_path
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.lookup import RESULTS_ROOT, run_folder_at, single_id
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.spec import RunSpec, spec_from_json
from subnetbench.harness.runs.state import Failure
from subnetbench.harness.runs.state_file import load_state
from subnetbench.harness.training.trained_run import find_model

MEASURED_TIMES = ("_ms", "_ms_p95", "_seconds", "throughput", "peak_memory_bytes")
"""Suffixes of metrics that are measured by the clock or the allocator: no two runs have the same."""

ScoreKey = tuple[str, str, str, str]
"""Split, variant, gallery variant, metric."""


@dataclass(frozen=True)
class Recorded:
    """One finished record: what it says of the run, its scores, and the results folder that it lies in."""

    run_id: str
    spec_json: str
    versions: Mapping[str, str]
    git_sha: str
    git_dirty: bool
    device: str
    data_digest: str
    provenance: Provenance
    tuned: bool
    scores: Mapping[ScoreKey, float]
    results: Path
    items: Path | None = None
    """The file of its scores by item; None: it has none."""


@dataclass(frozen=True)
class Outcome:
    """A run that was repeated: how its scores compare with the recorded ones.

    `differing` maps a score to its recorded and its new value (None: not there). `weights_equal` is None where the
    recorded run's weights are gone. `items_differing` counts outcomes of single test items that differ; None: the recorded
    run stored none, or they are gone.
    """

    folder: Path
    compared: int
    differing: Mapping[ScoreKey, tuple[float | None, float | None]]
    weights_equal: bool | None
    items_differing: int | None = None

    @property
    def largest(self) -> float:
        """The largest absolute difference; infinite where a score is on one side only."""
        gaps = [float("inf") if a is None or b is None else abs(a - b) for a, b in self.differing.values()]
        return max(gaps, default=0.0)


@dataclass(frozen=True)
class Reproduction:
    """What a run depends on, as recorded and as it is here; and the comparison, where the run was repeated."""

    run_id: str
    checks: tuple[Check, ...]
    outcome: Outcome | None

    @property
    def differing(self) -> list[str]:
        """The names of the checks that differ from the record."""
        return [each.name for each in self.checks if not each.same]

    def within(self, tolerance: float = 0.0) -> bool:
        """Whether no score differs by more than `tolerance`; without a repetition, whether no check differs."""
        return not self.differing if self.outcome is None else self.outcome.largest <= tolerance


def reproduce(
    run: RunReference,
    *,
    results: Path | str | None = None,
    into: Path | str | None = None,
    check: bool = False,
    data_root: Path | str | None = None,
    checked: Callable[[str, Sequence[Check]], None] = lambda run_id, checks: None,
    on_event: Callable[[str, str, str], None] = lambda run_id, event, detail: None,
) -> Reproduction:
    """Check what a run depends on against what is here, run it again, and compare its scores bit for bit.

    Args:
        run: Run folder, or (the beginning of) the id of a finished run.
        results: Results folder in which run ids are looked up; None: `results`.
        into: Fresh results folder for the new run; None: `reproduced/RUN-N`.
        check: Only check code, environment and data.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        checked: Called with the run id and the checks before the run starts.
        on_event: Called with run id, event and detail when a run starts or ends.

    Raises:
        UserError: There is no such finished run, several ids begin so, or `into` has runs in it.
        DataError: Data is missing.
        SubnetbenchError: The new run does not finish.

    Example:
        >>> from subnetbench import reproduce
        >>> again = reproduce("edge_popup-emoji-s0", results="results/quickstart", into="again")
        >>> again.within(tolerance=0.0), again.outcome.weights_equal
        (True, True)
    """
    recorded = find_recorded(os.fspath(run), Path(results) if results else None)
    spec, root = spec_of(recorded), data_folder(data_root)
    checks = tuple(examine(recorded, spec, root))
    checked(recorded.run_id, checks)
    outcome = None if check else run_again(recorded, spec, root, Path(into) if into else None, on_event)
    return Reproduction(recorded.run_id, checks, outcome)


def find_recorded(run: str, results: Path | None = None) -> Recorded:
    """The latest finished record of a run, by the path of its folder or by (the beginning of) its id.

    Ids are looked up in `results`, or in all folders of `results/`. Raises `UserError` when there is none, or when
    several runs begin with it.
    """
    by_path = run_folder_at(Path(run))
    if by_path is not None:
        results, run = by_path.results, by_path.run_id
    root = results or RESULTS_ROOT
    if not root.exists():
        raise UserError("there is no such folder", field="--out", value=str(root))
    records = read_records(root)
    finished = [(index, row) for index, row in enumerate(records.runs.to_pylist()) if row["status"] == "finished"]
    records.warn()
    run_id = single_id(run, {row["run_id"] for _, row in finished}, kind="finished run")
    attempts = [(index, row) for index, row in finished if row["run_id"] == run_id]
    index, row = max(attempts, key=lambda item: (item[1]["finished_at"], item[1]["attempt"]))
    return Recorded(
        run_id=row["run_id"],
        spec_json=row["spec_json"],
        versions=json.loads(row["versions_json"]),
        git_sha=row["git_sha"],
        git_dirty=row["git_dirty"],
        device=row["device"],
        data_digest=row["data_digest"],
        provenance=Provenance.from_text(row["provenance_json"]),
        tuned=bool(row["tuned"]),
        scores=_scores_of(records, index),
        results=Path(row["file"]).parent.parent,
        items=items_path(row["file"], row["record_id"]) if row["items_digest"] else None,
    )


def _scores_of(records: RecordSet, index: int) -> dict[ScoreKey, float]:
    own = records.scores.filter(pc.equal(records.scores["run"], index)).to_pylist()
    names = ("split", "variant", "gallery_variant", "metric")
    return {tuple(row[name] for name in names): row["value"] for row in own if row["metric"]}


def spec_of(recorded: Recorded) -> RunSpec:
    """The frozen spec of a record; raises `UserError` where this version cannot read it."""
    return spec_from_json(recorded.spec_json)


def examine(recorded: Recorded, spec: RunSpec, data_root: Path) -> list[Check]:
    """What a record stands on against what is here. Raises `DataError` where data is missing."""
    here = here_for(spec, data_root, recorded.results)
    known = recorded.provenance.code is not None
    machine = here.provenance.environment
    return [
        *_version_checks(recorded.versions),
        *([] if known else [commit_check(recorded.git_sha, recorded.git_dirty)]),
        Check("device", recorded.device, machine.device if machine else ""),
        *checks_of(recorded.provenance, here, recorded.data_digest),
        Check("run id", recorded.run_id, spec.run_id),
    ]


def _version_checks(recorded: Mapping[str, str]) -> Iterator[Check]:
    here = environment.versions()
    for name in dict.fromkeys([*recorded, *here]):
        yield Check(name, str(recorded.get(name, "not installed")), here.get(name, "not installed"))


def run_again(
    recorded: Recorded,
    spec: RunSpec,
    data_root: Path,
    into: Path | None = None,
    on_event: Callable[[str, str, str], None] = lambda run_id, event, detail: None,
) -> Outcome:
    """Run a spec (and the runs it starts from) in a fresh folder and compare the scores with the recorded ones.

    `into` must not hold runs yet; by default it is `reproduced/<run id>-<number>`. Raises `SubnetbenchError` where
    the run does not finish.
    """
    folder = results_folder("", into or _next_free(Path("reproduced"), spec.run_id))
    if any((folder / "runs").iterdir()):
        raise UserError("the folder has runs in it already", field="--into", value=str(folder))
    _bring_inputs(spec, recorded.results, folder)
    items = recorded.items is not None
    settings = RunSettings(data_root=data_root, trackers=(), tuned=recorded.tuned, items=items)
    plan = plan_runs([spec], folder)
    slots = max(each.compute.processes * each.compute.threads for each in plan.specs)
    status = run_locally(plan, folder, settings, slots=slots, on_event=on_event).get(spec.run_id)
    if status != "finished":
        failure = RunFolder(folder, spec.run_id).failure() or Failure(message="see its log")
        raise SubnetbenchError(f"the run is {status}: {failure.message} ({folder})")
    again = find_recorded(spec.run_id, folder)
    differing = compare_scores(recorded.scores, again.scores)
    models = [RunFolder(results, spec.run_id).model_file for results in (recorded.results, folder)]
    by_item = differing_items(recorded.items, again.items)
    return Outcome(folder, len(_comparable(again.scores)), differing, _same_weights(*models), by_item)


def compare_scores(
    recorded: Mapping[ScoreKey, float], again: Mapping[ScoreKey, float]
) -> dict[ScoreKey, tuple[float | None, float | None]]:
    """The scores whose bits differ, or that are on one side only; times are not compared, nor splits that were not
    recorded at all (records of earlier versions hold test scores alone), nor over how many items a score was taken where
    that was not recorded."""
    a, b = _comparable(recorded), _comparable(again)
    splits = {"", *(key[0] for key in a)}
    b = {key: value for key, value in b.items() if key in a or (key[0] in splits and key[3] not in COUNTS)}
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if _bits(a.get(key)) != _bits(b.get(key))}


def _comparable(scores: Mapping[ScoreKey, float]) -> dict[ScoreKey, float]:
    return {key: value for key, value in scores.items() if not key[3].endswith(MEASURED_TIMES)}


def _bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


def _next_free(parent: Path, run_id: str) -> Path:
    number = 1
    while (parent / f"{run_id}-{number}").exists():
        number += 1
    return parent / f"{run_id}-{number}"


def _bring_inputs(spec: RunSpec, results: Path, folder: Path) -> None:
    """Inputs that are named by run id are used as they are: linked, not trained again."""
    for each in (*spec.dependencies(), spec):
        for value in each.inputs.values():
            for item in value if isinstance(value, list) else [value]:
                run = getattr(item, "run", None)
                if run:
                    found = find_model(run, results).parent.resolve()
                    link = folder / "runs" / found.name
                    if not link.is_symlink():
                        link.symlink_to(found)


def _same_weights(recorded: Path, again: Path) -> bool | None:
    """Whether two model files hold the same tensors; what they say of times does not count."""
    if not recorded.exists() or not again.exists():
        return None
    a, b = (_tensors(load_state(path)) for path in (recorded, again))
    return a.keys() == b.keys() and all(a[name] == b[name] for name in a)


def _tensors(value: object, path: str = "") -> dict[str, tuple[object, ...]]:
    """All tensors of a nested state by path, as type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        return {path: (plain.dtype, tuple(plain.shape), plain.view(-1).view(torch.uint8).numpy().tobytes())}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, tuple[object, ...]] = {}
    for name, item in items:
        found |= _tensors(item, f"{path}/{name}")
    return found
