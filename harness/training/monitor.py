"""What watches a training run from outside: stop requests, heartbeats, trackers, and a tuner's pruning."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from subnetbench.harness.method import Progress
from subnetbench.harness.run_folder import RunFolder, write_json_text
from subnetbench.harness.world import World


class Interrupted(Exception):
    """Training stopped on request after writing a checkpoint; the run can be resumed."""


class Pruned(Exception):
    """A tuner stopped the run at a report, on all ranks together."""


class StopRequest(Protocol):
    """Asked between steps; True ends the run at the next step with a checkpoint."""

    def __call__(self) -> bool: ...


class PruneDecision(Protocol):
    """Told the selection metric after each validation; True stops the run as pruned."""

    def __call__(self, epochs_done: int, value: float) -> bool: ...


class Monitor:
    """Heartbeats and trackers of one run; only rank 0 writes.

    `epochs_done` counts over all stages. A heartbeat file says where the run stands at least every `interval`
    seconds, so that a run that died without a word is noticed.
    """

    interval = 1.0

    def __init__(
        self,
        world: World,
        folder: RunFolder | None = None,
        *,
        stop_requested: StopRequest = lambda: False,
        should_prune: PruneDecision = lambda epochs_done, value: False,
    ) -> None:
        self.world = world
        self.folder = folder
        self.stop_requested = stop_requested
        self.should_prune = should_prune
        self._last = 0.0
        # Time spent by earlier attempts counts: a run's seconds are those of all of them.
        earlier = (folder.progress() or {}).get("seconds", 0.0) if folder is not None else 0.0
        self._started = time.monotonic() - earlier
        self._facts: dict[str, Any] = {}

    def seconds(self) -> float:
        """Seconds since the run first started, without the time between attempts."""
        return time.monotonic() - self._started

    def heartbeat(self, stage: str, progress: Progress, *, force: bool = False) -> None:
        """Say where the run stands, at most once an interval."""
        now = time.monotonic()
        if self.folder is None or not self.world.is_main or (now - self._last < self.interval and not force):
            return
        self._last = now
        self._facts |= {
            "stage": stage,
            "epoch": progress.epoch,
            "epochs": progress.epochs,
            "step": progress.step,
            "total_steps": progress.total_steps,
        }
        self.write()

    def write(self, **facts: Any) -> None:
        """Write the heartbeat file now, with these facts added."""
        if self.folder is not None and self.world.is_main:
            self._facts |= {"time": time.time(), "seconds": round(self.seconds(), 2), **facts}
            write_json_text(self.folder.progress_file, to_json(self._facts))

    def log(self, values: Mapping[str, float], epochs_done: int) -> None:
        """Values of an epoch, to the trackers and the heartbeat."""
        self._facts["metrics"] = {**self._facts.get("metrics", {}), **values}
        self.world.accelerator.log(dict(values), step=epochs_done)


def to_json(value: Any) -> str:
    import json

    return json.dumps(value, allow_nan=True)
