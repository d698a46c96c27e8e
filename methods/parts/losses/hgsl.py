"""Hard global softmin loss (Dong et al. 2021): a softmin over distances to class centres, restricted to the nearest k.

    u      the unit embedding of a sample, p_c the centre of class c
    d_ic = sqrt(|u_i|^2 + |p_c|^2 - 2 u_i.p_c + 1e-6)
    z_ic = (10 / alpha) (m - d_ic)
    H    = mean_i [ log sum over the k largest z_ic of exp z_ic  -  z_i,label ]
    D    = mean |p_c.p_c'| over pairs of different classes
    L    = H + weight * D

The k nearest centres are those of all classes. With k = 1, as published, only samples whose own centre is not the
nearest count, and alpha is no more than a scale of the loss; the margin m cancels for every k.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import UserError

Centres = Literal["ratio", "unit"]


def hard_softmin(logits: Tensor, labels: Tensor, k: int | Literal["all"] = 1) -> Tensor:
    """H, the mean over samples: logits (n, classes), labels (n). Never negative, and finite for any finite logits."""
    count = logits.shape[1]
    nearest = logits if k == "all" or k >= count else logits.topk(k, dim=1).values
    return (nearest.logsumexp(dim=1) - logits.gather(1, labels[:, None]).squeeze(1)).mean()


def decorrelation(centres: Tensor) -> Tensor:
    """D: the mean absolute inner product of two different rows of `centres` (classes, d); 0 for a single class."""
    count = len(centres)
    if count < 2:
        return centres.new_zeros(())
    products = (centres @ centres.T).abs()
    return (products.sum() - products.diagonal().sum()) / (count * count - count)


class HardGlobalSoftmin(nn.Module):
    """The loss with its centres and its scale, in float32 at least, under autocast too.

    `centres="ratio"` is the published parameterisation: V / g, where g starts as the length of V, so centres have unit
    length at first and are free to leave it. `"unit"` keeps them at unit length. `alpha` is learned unless
    `learn_alpha` is false.

    Raises:
        UserError: For impossible settings.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        *,
        k: int | Literal["all"] = 1,
        alpha: float = 0.1,
        learn_alpha: bool = True,
        centres: Centres = "unit",
        decorrelation_weight: float = 0.1,
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        if k != "all" and k < 1:
            raise UserError("no nearest centres to compare with", field="k", value=k, allowed=">= 1, or 'all'")
        if alpha <= 0:
            raise UserError("must be positive", field="alpha", value=alpha, allowed="> 0")
        if centres not in ("ratio", "unit"):
            raise UserError("no such centres", field="centres", value=centres, allowed="ratio, unit")
        self.k, self.margin, self.decorrelation_weight = k, margin, decorrelation_weight
        bound = 1 / math.sqrt(dim)
        self.directions = nn.Parameter(torch.empty(classes, dim).uniform_(-bound, bound))
        lengths = self.directions.detach().norm(dim=1, keepdim=True)
        self.lengths = nn.Parameter(lengths) if centres == "ratio" else None
        self.alpha = nn.Parameter(torch.tensor(float(alpha)), requires_grad=learn_alpha)

    def centres(self) -> Tensor:
        """The centres that distances are taken to: (classes, dim)."""
        directions = self.directions
        return F.normalize(directions) if self.lengths is None else directions / self.lengths

    def distances(self, embeddings: Tensor) -> Tensor:
        """Distances (n, classes) of embeddings (n, dim) to all centres."""
        centres = self.centres()
        squares = embeddings.square().sum(dim=1, keepdim=True) + centres.square().sum(dim=1)
        # Rounding can make a vanishing distance to a long centre negative.
        return ((squares - 2 * embeddings @ centres.T).clamp(min=0) + 1e-6).sqrt()

    def logits(self, embeddings: Tensor) -> Tensor:
        """z (n, classes) for unit embeddings (n, dim)."""
        return (10 / self.alpha) * (self.margin - self.distances(embeddings))

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Scalars by name: `loss`, its parts, and for the log alpha, accuracy and the share of solved samples.

        `embeddings` (n, dim) are unit vectors (`unit_embedding`). `solved` is the share of samples that are at least
        as near to their own centre as to any other: at k = 1 those with zero loss.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            logits = self.logits(embeddings)
            hard, spread = hard_softmin(logits, labels, self.k), decorrelation(self.centres())
            with torch.no_grad():
                of_label = logits.gather(1, labels[:, None]).squeeze(1)
                solved = (of_label >= logits.amax(dim=1)).to(logits.dtype).mean()
                accuracy = (logits.argmax(dim=1) == labels).to(logits.dtype).mean()
        return {
            "loss": hard + self.decorrelation_weight * spread,
            "hard_softmin": hard,
            "decorrelation": spread,
            "alpha": self.alpha.detach(),
            "accuracy": accuracy,
            "solved": solved,
        }

    def centre_parameters(self) -> list[nn.Parameter]:
        """What the optimizer treats as centres; the other parameter is `alpha`."""
        return [self.directions] if self.lengths is None else [self.lengths, self.directions]


class DecorrelationRegularizer(nn.Module):
    """D of normalised rows (classes, d): a `weight_regularizer` for the proxy losses of pytorch-metric-learning."""

    def forward(self, weights: Tensor) -> Tensor:
        return decorrelation(F.normalize(weights))
