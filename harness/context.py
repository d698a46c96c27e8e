"""What a method may use while it trains or is evaluated."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.data import Preprocessing, Split, TaskData
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.streams import Purpose, numpy_generator, torch_generator
from subnetbench.harness.world import World

if TYPE_CHECKING:
    from subnetbench.harness.artifacts import Artifact
    from subnetbench.harness.run_folder import RunFolder
    from subnetbench.harness.training.monitor import Monitor


class Context:
    """One run's spec, data, processes, inputs and random streams.

    `inputs` maps a role to a finished run (or a list of them); `folder` is None where nothing is to be written.
    """

    def __init__(
        self,
        *,
        spec: RunSpec,
        data: TaskData,
        world: World,
        folder: "RunFolder | None" = None,
        inputs: "Mapping[str, Artifact | list[Artifact]] | None" = None,
        cache: Path | None = None,
        monitor: "Monitor | None" = None,
    ) -> None:
        self.spec = spec
        self.data = data
        self.world = world
        self.folder = folder
        self.inputs = dict(inputs or {})
        self.cache = cache
        self.monitor = monitor
        self.train_seconds = 0.0

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def device(self) -> torch.device:
        return self.world.device

    @cached_property
    def train_labels(self) -> Tensor:
        """Labels of the training split on the device, int64 (n,)."""
        return torch.from_numpy(np.ascontiguousarray(self.data.train.labels)).to(self.device)

    def numpy_generator(self, purpose: Purpose, *counters: int | str) -> np.random.Generator:
        """A NumPy generator of the run's seed, the same on all ranks."""
        return numpy_generator(self.seed, purpose, *counters)

    def torch_generator(self, purpose: Purpose, *counters: int | str, device: Any = "cpu") -> torch.Generator:
        """A torch generator of the run's seed, the same on all ranks."""
        return torch_generator(self.seed, purpose, *counters, device=device)

    def outputs(self, module: nn.Module, preprocessing: Preprocessing, split: Split) -> Tensor:
        """Float32 outputs of `module` for all images of a split, in order, on the device of the run.

        The images are spread over the ranks; every rank gets all rows.
        """
        from subnetbench.harness.evaluation.embed import embed

        shares = np.array_split(np.arange(len(split)), self.world.size)
        share = split if self.world.size == 1 else split.subset(shares[self.world.rank])
        with self.world.autocast():
            rows = embed(module, share.images, preprocessing, device=self.device, keep_on=self.device)
        return self.world.gather_rows(rows.float())
