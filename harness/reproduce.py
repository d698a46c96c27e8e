"""Make a recorded run again: check what it stood on, run it in a fresh folder, compare every score bit for bit."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness import environment
from subnetbench.harness.errors import SubnetbenchError, UserError, unknown
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.run_folder import RunFolder

if TYPE_CHECKING:
    from subnetbench.harness.specs import RunSpec

MEASURED_TIMES = ("_ms", "_ms_p95", "_seconds", "throughput", "peak_memory_bytes")
"""Endings of metrics that are measured by the clock or the allocator: no two runs have the same."""

_UNCOMMITTED = " with changes that were not committed"

ScoreKey = tuple[str, str, str, str]
"""Split, variant, gallery variant, metric."""


@dataclass(frozen=True)
class Recorded:
    """One finished record: its run-level columns, its scores, and the results folder that it lies in."""

    facts: Mapping[str, Any]
    scores: Mapping[ScoreKey, float]
    results: Path

    @property
    def run_id(self) -> str:
        return str(self.facts["run_id"])


@dataclass(frozen=True)
class Check:
    """One thing that figures depend on, as it was recorded and as it is here."""

    name: str
    recorded: str
    here: str

    @property
    def same(self) -> bool:
        # Nobody can tell which changes there were: two such states never count as the same.
        return self.recorded == self.here and not self.here.endswith(_UNCOMMITTED)


@dataclass(frozen=True)
class Outcome:
    """A run made again: how its scores compare with the recorded ones.

    `differing` maps a score to its recorded and its new value (None: not there). `weights_equal` is None where the
    recorded run's weights are gone.
    """

    folder: Path
    compared: int
    differing: Mapping[ScoreKey, tuple[float | None, float | None]]
    weights_equal: bool | None

    @property
    def largest(self) -> float:
        """The largest absolute difference; infinite where a score is on one side only."""
        gaps = [float("inf") if a is None or b is None else abs(a - b) for a, b in self.differing.values()]
        return max(gaps, default=0.0)


def find_recorded(run: str, results: Path | None = None) -> Recorded:
    """The latest finished record of a run, by the path of its folder or by (the beginning of) its id.

    Ids are looked up in `results`, or in all folders of `results/`. Raises `UserError` when there is none, or when
    several runs begin with it.
    """
    folder = Path(run).expanduser()
    if folder.is_dir() and (folder / "spec.json").exists():
        results, run = folder.resolve().parent.parent, folder.resolve().name
    root = results or Path("results")
    if not root.exists():
        raise UserError("there is no such folder", field="--out", value=str(root))
    records = read_records(root)
    finished = [(index, row) for index, row in enumerate(records.runs.to_pylist()) if row["status"] == "finished"]
    found = [(index, row) for index, row in finished if row["run_id"].startswith(run)]
    ids = {row["run_id"] for _, row in found}
    if not found:
        raise unknown("finished run", run, {row["run_id"] for _, row in finished})
    if len(ids) > 1 and run not in ids:
        raise UserError(f"{len(ids)} runs begin with it", field="RUN", value=run, allowed=sorted(ids)[0])
    exact = [(index, row) for index, row in found if len(ids) == 1 or row["run_id"] == run]
    index, row = max(exact, key=lambda item: (item[1]["finished_at"], item[1]["attempt"]))
    return Recorded(row, _scores_of(records, index), Path(row["file"]).parent.parent)


def _scores_of(records: RecordSet, index: int) -> dict[ScoreKey, float]:
    import pyarrow.compute as pc

    own = records.scores.filter(pc.equal(records.scores["run"], index)).to_pylist()
    names = ("split", "variant", "gallery_variant", "metric")
    return {tuple(row[name] for name in names): row["value"] for row in own if row["metric"]}


def spec_of(recorded: Recorded) -> "RunSpec":
    """The frozen spec of a record; raises `UserError` where this version cannot read it."""
    from subnetbench.harness.specs import spec_from_json

    return spec_from_json(recorded.facts["spec_json"])


def examine(recorded: Recorded, spec: "RunSpec", data_root: Path) -> list[Check]:
    """Versions, code, device and data of a record against what is here. Raises `DataError` where data is missing."""
    from subnetbench.harness.execution import load_data

    facts = recorded.facts
    sha, dirty = environment.git_state()
    return [
        *_version_checks(facts["versions_json"]),
        Check("code", _code(facts["git_sha"], facts["git_dirty"]), _code(sha, dirty)),
        Check("device", facts["device"], environment.device_name(_device(spec))),
        Check("data digest", facts["data_digest"], load_data(spec, data_root).digest),
        Check("run id", recorded.run_id, spec.run_id),
    ]


def _version_checks(versions_json: str) -> Iterator[Check]:
    import json

    recorded, here = json.loads(versions_json), environment.versions()
    for name in dict.fromkeys([*recorded, *here]):
        yield Check(name, str(recorded.get(name, "not installed")), here.get(name, "not installed"))


def _code(sha: str, dirty: bool) -> str:
    if not sha:
        return "installed package"
    return f"{sha[:12]}{_UNCOMMITTED}" if dirty else sha


def _device(spec: "RunSpec") -> Any:
    import torch

    wants_gpu = spec.compute.device in ("auto", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wants_gpu else "cpu")


def run_again(
    recorded: Recorded,
    spec: "RunSpec",
    data_root: Path,
    into: Path | None = None,
    on_event: Callable[[str, str, str], None] = lambda run_id, event, detail: None,
) -> Outcome:
    """Run a spec (and the runs it starts from) in a fresh folder and compare the scores with the recorded ones.

    `into` must not hold runs yet; by default it is `reproduced/<run id>-<number>`. Raises `SubnetbenchError` where
    the run does not finish.
    """
    from subnetbench.harness.planning import plan_runs, results_folder, run_locally

    folder = results_folder("", into or _next_free(Path("reproduced"), spec.run_id))
    if any((folder / "runs").iterdir()):
        raise UserError("the folder has runs in it already", field="--into", value=str(folder))
    _bring_inputs(spec, recorded.results, folder)
    settings = {"data_root": data_root, "trackers": (), "tuned": bool(recorded.facts["tuned"])}
    plan = plan_runs([spec], folder)
    slots = max(each.compute.processes * each.compute.threads for each in plan.specs)
    endings = run_locally(plan, folder, settings, slots=slots, on_event=on_event)
    if endings.get(spec.run_id) != "finished":
        failure = RunFolder(folder, spec.run_id).failure() or {}
        raise SubnetbenchError(
            f"the run {endings.get(spec.run_id)}: {failure.get('message', 'see its log')} ({folder})"
        )
    again = find_recorded(spec.run_id, folder)
    differing = compare_scores(recorded.scores, again.scores)
    models = [RunFolder(place, spec.run_id).model_file for place in (recorded.results, folder)]
    return Outcome(folder, len(_comparable(again.scores)), differing, _same_weights(*models))


def compare_scores(
    recorded: Mapping[ScoreKey, float], again: Mapping[ScoreKey, float]
) -> dict[ScoreKey, tuple[float | None, float | None]]:
    """The scores whose bits differ, or that are on one side only; times are not compared."""
    a, b = _comparable(recorded), _comparable(again)
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


def _bring_inputs(spec: "RunSpec", results: Path, folder: Path) -> None:
    """Inputs that are named by run id are used as they are: linked, not trained again."""
    from subnetbench.harness.artifacts import find_model

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
    from subnetbench.harness.state_files import load_state

    if not recorded.exists() or not again.exists():
        return None
    a, b = (_tensors(load_state(path)) for path in (recorded, again))
    return a.keys() == b.keys() and all(a[name] == b[name] for name in a)


def _tensors(value: Any, path: str = "") -> dict[str, tuple[Any, ...]]:
    """All tensors of a nested state by path, as type, shape and bytes."""
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        return {path: (plain.dtype, tuple(plain.shape), plain.view(-1).view(torch.uint8).numpy().tobytes())}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, tuple[Any, ...]] = {}
    for name, item in items:
        found |= _tensors(item, f"{path}/{name}")
    return found
