"""What watches a training run from outside: stop requests, heartbeats, trackers, and a tuner's pruning."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from subnetbench.harness.distributed.world import World
from subnetbench.harness.method.stages import Progress
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.state import Heartbeat
from subnetbench.harness.training.spending import Spending


class Interrupted(Exception):
    """Training stopped on request after writing a checkpoint; the run can be resumed."""


class Pruned(Exception):
    """A tuner stopped the run at a report, on all ranks together; it had spent `spending` and `train_seconds`."""

    def __init__(self, spending: Spending, train_seconds: float) -> None:
        super().__init__()
        self.spending = spending
        self.train_seconds = train_seconds


class StopRequest(Protocol):
    """Asked between steps; True ends the run at the next step with a checkpoint."""

    def __call__(self) -> bool: ...


class PruneDecision(Protocol):
    """Receives the selection metric after each validation; True stops the run as pruned."""

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
        earlier = (folder.heartbeat() if folder is not None else None) or Heartbeat()
        self._started = time.monotonic() - earlier.seconds
        self._heartbeat = Heartbeat(epochs_tracked=earlier.epochs_tracked)

    def seconds(self) -> float:
        """Seconds since the run first started, without the time between attempts."""
        return time.monotonic() - self._started

    def heartbeat(self, stage: str, progress: Progress, *, force: bool = False) -> None:
        """Say where the run stands, at most once an interval."""
        now = time.monotonic()
        if self.folder is None or not self.world.is_main or (now - self._last < self.interval and not force):
            return
        self._last = now
        self.write(
            stage=stage,
            epoch=progress.epoch,
            epochs=progress.epochs,
            step=progress.step,
            total_steps=progress.total_steps,
        )

    def write(self, **changes: Any) -> None:
        """Write the heartbeat file now, with these fields of `Heartbeat` changed."""
        if self.folder is not None and self.world.is_main:
            self._heartbeat = self._heartbeat.now(seconds=round(self.seconds(), 2), **changes)
            self.folder.write_heartbeat(self._heartbeat)

    def log(self, values: Mapping[str, float], epochs_done: int) -> None:
        """Values of an epoch, to the trackers and the heartbeat.

        An epoch that is repeated after an interruption has the same values: trackers that have them get them no more.
        """
        self._heartbeat = replace(self._heartbeat, metrics={**self._heartbeat.metrics, **values})
        if epochs_done > self._heartbeat.epochs_tracked:
            self.world.log(values, epochs_done)
            self.write(epochs_tracked=epochs_done)
