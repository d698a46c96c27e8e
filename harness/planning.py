"""Running many runs: what is left to do, in which order, and where."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subnetbench.harness.errors import UserError
from subnetbench.harness.launchers.local import Devices, Event, LocalLauncher
from subnetbench.harness.registry import loaded_plugins
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec


@dataclass
class Plan:
    """The runs of a sweep with their inputs, each once, and those of them that are left to do."""

    specs: list[RunSpec]
    todo: list[RunSpec] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def plan_runs(specs: Iterable[RunSpec], results: Path, *, retry_failed: bool = False) -> Plan:
    """Inputs before the runs that start from them; finished runs are left alone, failed ones unless retried."""
    ordered: dict[str, RunSpec] = {}
    for spec in specs:
        for each in (*spec.dependencies(), spec):
            ordered.setdefault(each.run_id, each)
    plan = Plan(list(ordered.values()))
    for spec in plan.specs:
        state = RunFolder(results, spec.run_id).state()
        if state == "finished":
            plan.finished.append(spec.run_id)
        elif state == "failed" and not retry_failed:
            plan.failed.append(spec.run_id)
        else:
            plan.todo.append(spec)
    return plan


def run_locally(
    plan: Plan,
    results: Path,
    settings: dict[str, Any],
    *,
    slots: int | None = None,
    runs_per_gpu: int = 1,
    on_event: Event = lambda run_id, event, detail: None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run what a plan has left to do on this machine; returns how each run of the plan ended."""
    launcher = LocalLauncher(
        results,
        {**settings, "plugins": tuple(loaded_plugins())},
        Devices(cpu_slots=slots or os.cpu_count() or 1, gpus=visible_gpus(plan.todo), runs_per_gpu=runs_per_gpu),
        on_event=on_event,
    )
    launcher.endings.update(dict.fromkeys(plan.finished, "finished"))
    launcher.endings.update(dict.fromkeys(plan.failed, "failed"))
    return launcher.run(plan.todo, tick=tick)


def visible_gpus(specs: Sequence[RunSpec]) -> tuple[str, ...]:
    """The GPUs that may be used, by index; empty when no run wants one or there is none."""
    if all(spec.compute.device == "cpu" for spec in specs):
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(gpu.strip() for gpu in visible.split(",") if gpu.strip())
    # Asking the driver's files does not start CUDA in this process, which would forbid forking.
    return tuple(str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))


def results_folder(name: str, given: str | Path | None) -> Path:
    """Where a sweep or run writes; raises `UserError` when that place cannot be written."""
    folder = Path(given) if given else Path("results") / name
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder cannot be written: {error.strerror}", field=str(folder)) from None
    if not os.access(folder, os.W_OK):
        raise UserError("the output folder is read-only", field=str(folder))
    return folder.resolve()
