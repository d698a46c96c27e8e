"""Losses of the PrunNet code and of the methods it compares with; pairs and contrasts beyond these are the library's.

Supervised contrastive and pair losses come from pytorch-metric-learning, whose values are those of the PrunNet code.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from subnetbench.harness.method import UserError

Margin = Literal["arcface", "cosface"]
SampleWeighting = Literal["none", "divergence", "curriculum"]


def margin_logits(
    features: Tensor, class_weights: Tensor, labels: Tensor, kind: Margin, *, scale: float = 30.0, margin: float = 0.3
) -> Tensor:
    """Scaled cosines (n, classes) of features and class weights, lowered at the label.

    Nothing is clamped, as in the PrunNet code.

    Args:
        features: (n, d).
        class_weights: (classes, d).
        labels: (n,).
        kind: By `arcface` (Deng et al. 2019) the label's angle grows by `margin`, by `cosface` (Wang et al. 2018) its
            cosine falls by it.
        scale: Factor of the cosines.
        margin: In radians for `arcface`.

    Raises:
        UserError: For another kind.
    """
    cosines = F.normalize(features) @ F.normalize(class_weights).T
    at_label = F.one_hot(labels, len(class_weights)).bool()
    if kind == "arcface":
        return scale * torch.where(at_label, torch.cos(torch.acos(cosines) + margin), cosines)
    if kind == "cosface":
        return scale * (cosines - margin * at_label)
    raise UserError("no such margin", field="margin", value=kind, allowed="arcface, cosface")


def asymmetric_triplet_loss(
    queries: Tensor,
    gallery: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.3,
    distance: Literal["cosine", "euclidean"] = "cosine",
    mining: Literal["hard", "soft"] = "hard",
) -> Tensor:
    """Triplets of an anchor in `queries` (n, d) with its classmates and others in `gallery` (n, d), same labels.

    The distance is 2 - 2 cos or Euclidean. `hard` takes the farthest positive and the nearest negative, `soft` means
    of all, weighted by soft-max for far positives and near negatives. A margin of 0 means log(1 + exp(d+ - d-)).
    """
    if distance == "cosine":
        distances = 2 - 2 * F.normalize(queries) @ F.normalize(gallery).T
    else:
        squares = queries.square().sum(dim=1, keepdim=True) + gallery.square().sum(dim=1) - 2 * queries @ gallery.T
        distances = squares.clamp(min=1e-12).sqrt()
    positive = (labels[:, None] == labels).to(distances)
    negative = 1 - positive
    if mining == "hard":
        to_positive = (distances * positive).amax(dim=1)
        to_negative = (distances * negative + positive * 1e9).amin(dim=1)
    else:
        to_positive = (distances * _soft_maximum(distances, positive)).sum(dim=1)
        to_negative = (distances * _soft_maximum(-distances, negative)).sum(dim=1)
    excess = to_positive - to_negative
    return F.softplus(excess).mean() if margin == 0 else F.relu(excess + margin).mean()


def evidential_loss(logits: Tensor, labels: Tensor, *, regularisation: float = 5e-4) -> Tensor:
    """Evidential cross-entropy of SFSC, the mean over samples: logits (n, classes), labels (n).

    Evidence softplus(logits) gives a Dirichlet distribution over class probabilities: the expected cross-entropy,
    plus min(1, regularisation) times its divergence from the uniform one once the label's evidence is taken out.
    """
    concentration = F.softplus(logits) + 1
    at_label = F.one_hot(labels, logits.shape[1]).bool()
    of_label = concentration.gather(1, labels[:, None]).squeeze(1)
    expected = torch.digamma(concentration.sum(dim=1)) - torch.digamma(of_label)
    others = torch.where(at_label, 1.0, concentration)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Dirichlet(others), torch.distributions.Dirichlet(torch.ones_like(others))
    )
    return (expected + min(1.0, regularisation) * divergence).mean()


@torch.no_grad()
def sample_weights(
    dense_logits: Tensor, logits: Tensor, losses: Tensor, kind: SampleWeighting, *, late: bool = False
) -> Tensor:
    """Weights (n,) of a subnetwork's samples from how far it is from the dense network, and from its `losses` (n,).

    With KL = KL(dense || subnetwork) of a sample, less the batch mean: `divergence` is 1 + KL; `curriculum` is 1 - KL
    at first and (1 + KL) * loss / mean loss when `late`; `none` is 1.
    """
    if kind == "none":
        return torch.ones_like(losses)
    log_dense, log_sub = F.log_softmax(dense_logits, dim=1), F.log_softmax(logits, dim=1)
    divergence = (log_dense.exp() * (log_dense - log_sub)).sum(dim=1)
    divergence = divergence - divergence.mean()
    if kind == "divergence":
        return 1 + divergence
    if kind == "curriculum":
        return (1 + divergence) * losses / losses.mean() if late else 1 - divergence
    raise UserError("no such weighting", field="sample_weighting", value=kind, allowed="none, divergence, curriculum")


def _soft_maximum(values: Tensor, chosen: Tensor) -> Tensor:
    """Soft-max weights over the entries that `chosen` marks with 1."""
    values = values * chosen
    weights = (values - values.amax(dim=1, keepdim=True)).exp() * chosen
    # The published code guards against an empty set with this, and results depend on it.
    return weights / (weights.sum(dim=1, keepdim=True) + 1e-6)
