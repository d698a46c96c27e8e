"""Matryoshka representation learning: one loss for each leading part of an embedding (Kusupati et al. 2022)."""

from collections.abc import Sequence
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.methods.parts.losses.margin import margin_logits

ClassLoss = Literal["softmax", "arcface", "cosface"]


class NestedClassifiers(nn.Module):
    """The sum over sizes m of the cross-entropy of a linear classifier of the first m numbers (equation 1, all c_m = 1).

    Args:
        sizes: The sizes m, each at least 1.
        classes: Number of classes.
        tied: One classifier, of whose weights the size m uses the first m columns (the paper's MRL-E), instead of one a size.
        loss: `softmax` of products with biases, or of scaled cosines with a margin.
        scale: Of `arcface` and `cosface`.
        margin: Of the same; radians for `arcface`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        *,
        tied: bool = False,
        loss: ClassLoss = "softmax",
        scale: float = 30.0,
        margin: float = 0.3,
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.tied, self.loss, self.scale, self.margin = tied, loss, scale, margin
        own = [max(sizes)] if tied else sizes
        self.classifiers = nn.ModuleList(nn.Linear(size, classes, bias=loss == "softmax") for size in own)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[int, Tensor]:
        """Means over the batch by size, of embeddings (n, d), not normalised, with d at least the largest size."""
        found = {}
        for i, size in enumerate(self.sizes):
            classifier = cast(nn.Linear, self.classifiers[0 if self.tied else i])
            part, weight = embeddings[:, :size], classifier.weight[:, :size]
            if self.loss == "softmax":
                logits = F.linear(part, weight, classifier.bias)
            else:
                logits = margin_logits(part, weight, labels, self.loss, scale=self.scale, margin=self.margin)
            found[size] = F.cross_entropy(logits, labels)
        return found
