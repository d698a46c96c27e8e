"""When to write a checkpoint, and where it lies.

One file holds the last state and the best weights so far, so the two always belong together.
The interval adapts to the cost: the time spent on writing stays below one percent of the run's time, and a
checkpoint is never older than `longest` seconds of work.
"""

import os
import time

from subnetbench.harness.core.errors import RunFailure
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.state_file import BrokenStateFile, load_state, save_state
from subnetbench.harness.training.state import Checkpoint

COST_SHARE = 0.01
SHORTEST_INTERVAL = 10.0
LONGEST_INTERVAL = 600.0
# Seconds between checkpoints, whatever they cost.
FIXED_INTERVAL = os.environ.get("SUBNETBENCH_CHECKPOINT_SECONDS")


class Checkpoints:
    """The checkpoint file of a run; with `folder` None nothing is kept."""

    def __init__(self, folder: RunFolder | None) -> None:
        self.folder = folder
        self._written = time.monotonic()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint."""
        if self.folder is None:
            return False
        interval = min(max(self._cost / COST_SHARE, SHORTEST_INTERVAL), LONGEST_INTERVAL)
        if FIXED_INTERVAL:
            interval = float(FIXED_INTERVAL)
        return time.monotonic() - self._written >= interval

    def save(self, checkpoint: Checkpoint) -> None:
        """Write what is needed to resume; the previous checkpoint stays until this one is complete."""
        if self.folder is None:
            return
        started = time.monotonic()
        own = {"run_id": self.folder.run_id, "provenance": (self.folder.provenance() or Provenance()).to_json()}
        save_state(self.folder.last_checkpoint, {**own, **checkpoint.to_state()})
        self._written = time.monotonic()
        self._cost = self._written - started

    def load(self) -> Checkpoint | None:
        """The checkpoint to resume from, or None to start afresh.

        Raises:
            RunFailure: The checkpoint is of another run.
            BrokenStateFile: It is truncated, or lacks a part.
        """
        if self.folder is None or not self.folder.last_checkpoint.exists():
            return None
        state = load_state(self.folder.last_checkpoint)
        if state.get("run_id") != self.folder.run_id:
            raise RunFailure(
                f"{self.folder.last_checkpoint} belongs to run {state.get('run_id')}, not to {self.folder.run_id}",
                reason="foreign-checkpoint",
            )
        try:
            return Checkpoint.from_state(state)
        except (KeyError, TypeError) as error:
            raise BrokenStateFile(f"{self.folder.last_checkpoint} is no checkpoint: {error} is missing") from None
