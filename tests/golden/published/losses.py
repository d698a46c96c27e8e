"""Losses of the published codes that no method of the package uses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from subnetbench.methods.parts.networks.pooling import EPSILON


def compatible_contrast(
    new: Tensor,
    old: Tensor,
    labels: Tensor,
    *,
    negatives: int = 3,
    temperature: float = 1.0,
    against_new: bool = False,
) -> Tensor:
    """A new embedding (n, d) shall be nearer to its own old one than to the old ones of other classes.

    Cross-entropy over inner products with its own old embedding and with the `negatives` hardest others; with
    `against_new` with as many of the new embeddings too, so that the new model does not regress (Zhang et al. 2022,
    arXiv 2201.09724).
    """
    same = (labels[:, None] == labels).to(new) * 1e9
    columns = [(new * old).sum(dim=1, keepdim=True), (new @ old.T - same).topk(negatives, dim=1).values]
    if against_new:
        columns.append((new @ new.T - same).topk(negatives, dim=1).values)
    logits = torch.cat(columns, dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros_like(labels))


def asymmetric_contrastive(anchors: Tensor, positives: Tensor, negatives: Tensor, *, margin: float = 0.7) -> Tensor:
    """AML's contrastive loss: student anchors (b, d), teacher positives (b, p, d) and negatives (b, n, d).

    Half of the sum of squared distances to the positives and of squared shortfalls from `margin` to the negatives,
    averaged over the anchors. The teacher's embedding of the anchor among the positives makes it "Contr+".
    """
    anchors = anchors.unsqueeze(1)
    attraction = _squared_distance(anchors, positives).sum(dim=1)
    shortfall = F.relu(margin - _squared_distance(anchors, negatives).sqrt())
    return (attraction + shortfall.square().sum(dim=1)).mean() / 2


def unit_embedding(features: Tensor) -> Tensor:
    """Rows (n, d) divided by sqrt(|row|^2 + 1e-10)."""
    return features / (features.square().sum(dim=-1, keepdim=True) + 1e-10).sqrt()


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b + epsilon|^2 along the last axis."""
    return (a - b + EPSILON).square().sum(dim=-1)
