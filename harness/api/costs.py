"""What a sweep will cost before anything is submitted, from steps measured on this machine."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subnetbench.harness.api.estimate import RunCost, SweepCost, combine, measure, start_seconds
from subnetbench.harness.core.errors import check_at_least
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.slurm.arrays import group
from subnetbench.harness.execution.slurm.profile import read_cluster
from subnetbench.harness.execution.slurm.resources import SweepResources, resources_for
from subnetbench.harness.execution.sweep_file import read_sweep
from subnetbench.harness.runs.spec import RunSpec


@dataclass(frozen=True)
class RecipeCost:
    """What the runs of one recipe cost, which differ in nothing but their seed."""

    config_hash: str
    method: str
    dataset: str
    runs: int
    cost: RunCost


@dataclass(frozen=True)
class SweepEstimate:
    """What the unfinished runs of a sweep will cost, and as how many jobs in how many arrays they would be submitted."""

    total: SweepCost
    jobs: int
    arrays: int
    recipes: tuple[RecipeCost, ...]

    @property
    def totals(self) -> dict[str, int | float]:
        """Runs, jobs, arrays, hours (wall, of devices, of GPUs), GB kept and at most on the disk, MACs of training."""
        return {
            "runs": self.total.runs,
            "jobs": self.jobs,
            "arrays": self.arrays,
            "wall_hours": self.total.wall_seconds / 3600,
            "device_hours": self.total.busy_seconds / 3600,
            "gpu_hours": self.total.gpu_seconds / 3600,
            "disk_gb": self.total.kept_bytes / 1e9,
            "most_disk_gb": self.total.most_bytes / 1e9,
            "training_macs": self.total.training_macs,
        }

    @property
    def frame(self) -> pd.DataFrame:
        """One line a recipe: method, dataset, runs, device, steps, seconds_per_step, seconds and training_macs (of a
        run)."""
        costs = ("device", "steps", "seconds_per_step", "seconds", "training_macs")
        rows = [(r.method, r.dataset, r.runs, *(getattr(r.cost, name) for name in costs)) for r in self.recipes]
        columns = ["method", "dataset", "runs", *costs]
        return pd.DataFrame(rows, columns=columns)


def plan(
    file: Path | str,
    gpus: int,
    *,
    cluster: str | None = None,
    data_root: Path | str | None = None,
    seconds: float = 3.0,
) -> SweepEstimate:
    """Estimate what the unfinished runs of a sweep will cost, from steps measured on this machine.

    Args:
        file: Sweep file (YAML).
        gpus: Devices (GPUs, or CPU slots) that runs may use at once, at least 1.
        cluster: Site profile by name, or a YAML file: how runs are put together into jobs.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        seconds: How long each recipe is trained to measure it.

    Raises:
        UserError: The file, a profile or a resource cannot be used.

    Example:
        >>> from subnetbench import plan
        >>> estimate = plan("small.yaml", gpus=2, seconds=0.1)
        >>> estimate.total.runs, estimate.frame["steps"].tolist()
        (2, [2, 2])
    """
    check_at_least("gpus", gpus, 1)
    content = read_sweep(Path(file))
    entries = content.expand_with_resources()
    specs = plan_runs([spec for spec, _ in entries], Path(content.results or Path("results") / content.name)).todo
    profile, section = read_cluster(cluster), SweepResources.parse(content.resources, where="resources")
    own = {spec.run_id: resources for spec, resources in entries}
    arrays, _ = group(
        specs,
        lambda spec: resources_for(spec, profile, section, own.get(spec.run_id)),
        largest_array=profile.max_array_size,
        room=profile.max_jobs,
    )
    costs = measure(specs, data_folder(data_root), seconds=seconds)
    total = combine(specs, costs, gpus, start_seconds())
    return SweepEstimate(total, sum(len(array.jobs) for array in arrays), len(arrays), _recipes(specs, costs))


def _recipes(specs: list[RunSpec], costs: dict[str, RunCost]) -> tuple[RecipeCost, ...]:
    found = []
    for config_hash, cost in costs.items():
        same = [spec for spec in specs if spec.config_hash == config_hash]
        found.append(RecipeCost(config_hash, same[0].method, same[0].dataset, len(same), cost))
    return tuple(found)
