"""What runs on one machine share: slots of CPU cores, and GPUs."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from subnetbench.harness.runs.spec import RunSpec

_NO_GPU = ("nodevfiles", "none", "void")


@dataclass
class Devices:
    """CPU slots, and GPUs of which each serves `runs_per_gpu` runs at most."""

    cpu_slots: int
    gpus: tuple[str, ...] = ()
    runs_per_gpu: int = 1
    _load: dict[str, int] = field(default_factory=dict)
    _cpu_used: int = 0

    def take(self, spec: RunSpec) -> list[str] | None:
        """GPU ids for a run's ranks (none for a CPU run), or None when it must wait."""
        ranks = spec.compute.processes
        if self.gpus and spec.compute.device != "cpu":
            free = [gpu for gpu in self.gpus if self._load.get(gpu, 0) < self.runs_per_gpu]
            free.sort(key=lambda gpu: self._load.get(gpu, 0))
            if len(free) < min(ranks, len(self.gpus)):
                return None
            chosen = free[:ranks]
            for gpu in chosen:
                self._load[gpu] = self._load.get(gpu, 0) + 1
            return chosen
        needed = _slots(spec)
        if self._cpu_used and self._cpu_used + needed > self.cpu_slots:
            return None
        self._cpu_used += needed
        return []

    def give_back(self, spec: RunSpec, gpus: Sequence[str]) -> None:
        """Free what `take` gave a run."""
        for gpu in gpus:
            self._load[gpu] -= 1
        if not gpus:
            self._cpu_used -= _slots(spec)


def visible_gpus(specs: Sequence[RunSpec]) -> tuple[str, ...]:
    """The GPUs that may be used, by index; empty when no run wants one or there is none."""
    if all(spec.compute.device == "cpu" for spec in specs):
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # As CUDA reads it: what follows an entry that is no GPU does not count.
        named = [gpu.strip() for gpu in visible.split(",")]
        return tuple(itertools.takewhile(lambda gpu: gpu and gpu.lower() not in _NO_GPU and gpu != "-1", named))
    # Asking the driver's files does not start CUDA in this process, which would forbid forking.
    return tuple(str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))


def _slots(spec: RunSpec) -> int:
    return spec.compute.processes * spec.compute.threads
