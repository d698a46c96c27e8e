"""Outputs of networks for the images of one run: spread over its ranks, and kept on disk where they cannot change."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.distributed.world import World
from subnetbench.harness.evaluation.cache import FeatureCache, weights_digest
from subnetbench.harness.evaluation.outputs import embed


class Evaluator:
    """Computes outputs of networks for splits of `data`, on all ranks of `world` together.

    `cache` is a folder for outputs of frozen networks; None: they are computed anew each time. `costs` says whether
    evaluation measures what variants cost too, which is the same on every split.
    """

    def __init__(self, data: TaskData, world: World, cache: Path | None = None, *, costs: bool = True) -> None:
        self.data = data
        self.world = world
        self.costs = costs
        self.cache = None if cache is None else FeatureCache(cache, world)

    @property
    def device(self) -> torch.device:
        return self.world.device

    def outputs(self, module: nn.Module, preprocessing: Preprocessing, split: Split) -> Tensor:
        """Float32 outputs (n, ...) of `module` for all images of a split, in order, on the device of the run.

        The images are spread over the ranks; every rank gets all rows.
        """
        shares = np.array_split(np.arange(len(split)), self.world.size)
        share = split if self.world.size == 1 else split.subset(shares[self.world.rank])
        with self.world.autocast():
            rows = embed(module, share.images, preprocessing, device=self.device, keep_on=self.device)
        return self.world.gather_rows(rows.float())

    def cached_outputs(self, module: nn.Module, preprocessing: Preprocessing, split: Split) -> Tensor:
        """`outputs` of a frozen network for a split of the data, from the cache where they are there."""
        key = (weights_digest(module), repr(module), repr(preprocessing), split.name, len(split))
        return self.cached_rows(key, lambda: self.outputs(module, preprocessing, split))

    def cached_rows(self, key: Sequence[object], compute: Callable[[], Tensor]) -> Tensor:
        """Float32 rows (n, ...) on the run's device: from the cache, else what `compute` returns on every rank.

        `key` names what they are; the data and the compute settings are added to it. All ranks must call this
        together, and all read or all compute.
        """
        if self.cache is None:
            return compute()
        return self.cache.rows((self.data.digest, *key), compute)
