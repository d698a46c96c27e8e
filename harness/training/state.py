"""What a training run consists of at one instant, as types: its model, and all that a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from subnetbench.harness.method.base import Method, MethodState
from subnetbench.harness.method.stages import Optimization
from subnetbench.harness.training.spending import SpendingState

# Open: what torch's optimizers return from `state_dict`.
OptimizerState = dict[str, Any]
# Open: the nested values of a state file, before they are given a type.
StateFile = Mapping[str, Any]


@dataclass(frozen=True)
class ModelState:
    """Weights and buffers of all modules, and the method's own state."""

    modules: dict[str, Tensor]
    method: MethodState

    @classmethod
    def of(cls, modules: nn.ModuleDict, method: Method[Any]) -> Self:
        """The state of the modules as they are; its tensors are theirs, not copies."""
        return cls(dict(modules.state_dict()), method.state)

    def restore(self, modules: nn.ModuleDict, method: Method[Any], device: torch.device) -> None:
        """Put the state back into modules of the same structure."""
        modules.load_state_dict(self.modules)
        method.state = _to_device(self.method, device)

    def copied(self) -> "ModelState":
        """A copy on the CPU that later steps cannot change."""
        return ModelState(_copy(self.modules), _copy(self.method))

    def to_state(self) -> StateFile:
        """For a state file; `from_state` reads it."""
        return {"modules": self.modules, "method": self.method}

    @classmethod
    def from_state(cls, state: StateFile) -> Self:
        """Raises `KeyError` where the state is of something else."""
        return cls(state["modules"], state["method"])


@dataclass(frozen=True)
class SelectionState:
    """How many validations were seen, and which was the best so far (None before the first)."""

    seen: int = 0
    best_index: int | None = None
    best_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a run needs to resume with the same bits.

    `stage`, `epoch` and `step` are those to take next; `step` counts within the epoch. `logs` are the sum and the weight
    of each logged scalar of the epoch so far, over all ranks. `spending` is None in a file of a version that did not
    count it. `best` is the model of the best validation, None where
    the last one is it.
    """

    stage: int
    epoch: int
    step: int
    steps_per_epoch: int
    selection: SelectionState
    train_seconds: float
    spending: SpendingState | None
    logs: dict[str, list[float]]
    optimizers: dict[str, OptimizerState]
    best: ModelState | None
    model: ModelState

    def to_state(self) -> StateFile:
        """For a state file; `from_state` reads it."""
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "steps_per_epoch": self.steps_per_epoch,
            "selection": vars(self.selection),
            "train_seconds": self.train_seconds,
            "spending": self.spending,
            "logs": self.logs,
            "optimizers": self.optimizers,
            "best": None if self.best is None else self.best.to_state(),
            **self.model.to_state(),
        }

    @classmethod
    def from_state(cls, state: StateFile) -> Self:
        """Raises `KeyError` where the state is of something else."""
        return cls(
            stage=state["stage"],
            epoch=state["epoch"],
            step=state["step"],
            steps_per_epoch=state["steps_per_epoch"],
            selection=SelectionState(**state["selection"]),
            train_seconds=state["train_seconds"],
            spending=state.get("spending"),
            logs=state["logs"],
            optimizers=state["optimizers"],
            best=None if state["best"] is None else ModelState.from_state(state["best"]),
            model=ModelState.from_state(state),
        )


def optimizer_states(optimizations: Mapping[str, Optimization]) -> dict[str, OptimizerState]:
    """The states of a stage's optimizers by name."""
    return {name: optimization.optimizer.state_dict() for name, optimization in optimizations.items()}


def restore_optimizers(optimizations: Mapping[str, Optimization], states: Mapping[str, OptimizerState]) -> None:
    """Put back what `optimizer_states` took."""
    for name, optimization in optimizations.items():
        optimization.optimizer.load_state_dict(states[name])


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_device(item, device) for item in value]
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
