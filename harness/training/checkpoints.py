"""When to write a checkpoint, and what goes into it.

One file holds the last state and the best weights so far, so the two always belong together.
The interval adapts to the cost: the time spent on writing stays below one percent of the run's time, and a
checkpoint is never older than `longest` seconds of work.
"""

import os
import time
from typing import Any

import torch
from torch import nn

from subnetbench.harness.errors import RunFailure
from subnetbench.harness.method import Method, Optimization
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.state_files import load_state, save_state

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

    def save_last(self, state: dict[str, Any]) -> None:
        """Write what is needed to go on; the previous checkpoint stays until this one is complete."""
        if self.folder is None:
            return
        started = time.monotonic()
        save_state(self.folder.last_checkpoint, {"run_id": self.folder.run_id, **state})
        self._written = time.monotonic()
        self._cost = self._written - started

    def load_last(self) -> dict[str, Any] | None:
        """The state to go on from, or None to start afresh.

        Raises `RunFailure` when the checkpoint is of another run, `BrokenStateFile` when it is truncated.
        """
        if self.folder is None or not self.folder.last_checkpoint.exists():
            return None
        state = load_state(self.folder.last_checkpoint)
        if state.get("run_id") != self.folder.run_id:
            raise RunFailure(
                f"{self.folder.last_checkpoint} belongs to run {state.get('run_id')}, not to {self.folder.run_id}",
                reason="foreign-checkpoint",
            )
        return state

    def remove(self) -> None:
        """Forget the checkpoint of a run whose training is over."""
        if self.folder is not None:
            self.folder.last_checkpoint.unlink(missing_ok=True)


def modules_state(modules: nn.ModuleDict, method: Method[Any]) -> dict[str, Any]:
    """Weights, buffers and the method's own state."""
    return {"modules": dict(modules.state_dict()), "method": method.state}


def load_modules(modules: nn.ModuleDict, method: Method[Any], state: dict[str, Any], device: torch.device) -> None:
    """Put back what `modules_state` took."""
    modules.load_state_dict(state["modules"])
    method.state = _to_device(state["method"], device)


def optimizers_state(optimizations: dict[str, Optimization]) -> dict[str, Any]:
    return {name: optimization.optimizer.state_dict() for name, optimization in optimizations.items()}


def load_optimizers(optimizations: dict[str, Optimization], state: dict[str, Any]) -> None:
    for name, optimization in optimizations.items():
        optimization.optimizer.load_state_dict(state[name])


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_device(item, device) for item in value]
    return value
