"""What a method may use while it trains or is evaluated."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.core.rng import Purpose, numpy_generator, torch_generator
from subnetbench.harness.data.metadata import DataMetadata
from subnetbench.harness.data.splits import TaskData
from subnetbench.harness.distributed.world import World
from subnetbench.harness.evaluation.evaluator import Evaluator
from subnetbench.harness.evaluation.variant import Variant
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Ledger


class Input(Protocol):
    """A finished run that another one starts from: a teacher, a level of a cascade."""

    @property
    def path(self) -> Path:
        """The file with its weights."""
        ...

    @property
    def spec(self) -> RunSpec: ...

    @property
    def network(self) -> str:
        """What leaderboards call its network."""
        ...

    @property
    def modules(self) -> nn.ModuleDict:
        """Its trained modules by role, in evaluation mode."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What its training and that of its inputs spent."""
        ...

    def variants(self) -> list[Variant]:
        """The networks it offers, each with its `origin`: this run, or an input of it."""
        ...

    def variant(self, name: str | None = None) -> Variant:
        """The variant called `name`; None: the first one. Raises `UserError` when there is none of this name."""
        ...


Inputs = Mapping[str, Input | Sequence[Input]]


class Context:
    """One run's spec, data, processes, inputs and random streams.

    Args:
        spec: What is run.
        world: The processes of the run.
        data: Its data, or only their metadata where a trained run is opened without images.
        inputs: Finished runs by role; a role may have a list of them.
        cache: Folder for outputs of frozen networks, shared by runs; None: no cache.
        scratch: Folder for large temporary files; None: the system's.
    """

    def __init__(
        self,
        *,
        spec: RunSpec,
        world: World,
        data: TaskData | DataMetadata,
        inputs: Inputs | None = None,
        cache: Path | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.spec = spec
        self.world = world
        self.metadata = data if isinstance(data, DataMetadata) else data.metadata
        self.scratch = scratch
        self._data = None if isinstance(data, DataMetadata) else data
        self.inputs: Inputs = dict(inputs or {})
        self.cache = cache

    @property
    def data(self) -> TaskData:
        """The data of the run. Raises `RuntimeError` where a trained run was opened without any."""
        if self._data is None:
            raise RuntimeError(f"this run was opened without images; only `context.metadata` of {self.spec.dataset}")
        return self._data

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def device(self) -> torch.device:
        return self.world.device

    @cached_property
    def evaluator(self) -> Evaluator:
        """Outputs of networks for images of the run's data, spread over ranks and cached where frozen."""
        return Evaluator(self.data, self.world, self.cache)

    def without_costs(self) -> "Context":
        """The same with an evaluator that measures scores alone: costs were measured on another split."""
        other = copy.copy(self)
        other.__dict__["evaluator"] = Evaluator(self.data, self.world, self.cache, costs=False)
        return other

    @cached_property
    def train_labels(self) -> Tensor:
        """Labels of the training split on the device, int64 (n,)."""
        return torch.from_numpy(np.ascontiguousarray(self.data.train.labels)).to(self.device)

    def input(self, role: str) -> Input:
        """The one finished run of a role. Raises `KeyError` for an undeclared role, `TypeError` for a list."""
        found = self.inputs[role]
        if isinstance(found, Sequence):
            raise TypeError(f"the input {role!r} is a list of {len(found)} runs")
        return found

    def input_list(self, role: str) -> list[Input]:
        """The finished runs of a role, in order; one that is no list counts as a list of one."""
        found = self.inputs[role]
        return list(found) if isinstance(found, Sequence) else [found]

    def numpy_generator(self, purpose: Purpose, *counters: int | str) -> np.random.Generator:
        """A NumPy generator of the run's seed, the same on all ranks."""
        return numpy_generator(self.seed, purpose, *counters)

    def torch_generator(
        self, purpose: Purpose, *counters: int | str, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """A torch generator of the run's seed, the same on all ranks."""
        return torch_generator(self.seed, purpose, *counters, device=device)
