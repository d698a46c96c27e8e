"""`run` and `sweep` from Python; each run still has processes of its own."""

from pathlib import Path
from typing import Any

from subnetbench.harness.paths import default_data_root
from subnetbench.harness.planning import plan_runs, results_folder, run_locally
from subnetbench.harness.specs import RunSpec, resolve
from subnetbench.harness.sweep_file import read_sweep
from subnetbench.harness.trackers import check_trackers


def run(
    method: str,
    dataset: str,
    *,
    config: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    task: str | None = None,
    seed: int = 0,
    compute: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
    results: Path | str = "results/runs",
    data_root: Path | None = None,
    trackers: list[str] | None = None,
    retry_failed: bool = False,
) -> str:
    """Train, evaluate and record one run, or go on with it; returns how it ended (`finished`, `failed`, ...)."""
    spec = resolve(method, dataset, config=config, data=data, task=task, seed=seed, compute=compute, inputs=inputs)
    endings = _launch([spec], "runs", results, data_root, trackers, retry_failed, None)
    return endings[spec.run_id]


def sweep(
    file: Path | str,
    *,
    results: Path | str | None = None,
    data_root: Path | None = None,
    slots: int | None = None,
    trackers: list[str] | None = None,
    retry_failed: bool = False,
) -> dict[str, str]:
    """Run all runs of a sweep file that are not finished; returns how each ended, by run id."""
    content = read_sweep(Path(file))
    place = results or content.results
    slots = slots or content.slots
    return _launch(
        content.expand(), content.name, place, data_root, trackers, retry_failed, slots, **content.settings()
    )


def _launch(
    specs: list[RunSpec],
    name: str,
    results: Path | str | None,
    data_root: Path | None,
    trackers: list[str] | None,
    retry_failed: bool,
    slots: int | None,
    **settings: Any,
) -> dict[str, str]:
    folder = results_folder(name, results)
    settings = {
        "data_root": data_root or default_data_root(),
        "trackers": check_trackers(trackers),
        "sweep": name,
        **settings,
    }
    return run_locally(plan_runs(specs, folder, retry_failed=retry_failed), folder, settings, slots=slots)
