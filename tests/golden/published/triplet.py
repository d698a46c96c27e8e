"""Positives of a batch, as the published RAML code finds them."""

from torch import Tensor


def in_batch_positives(labels: Tensor) -> Tensor:
    """Positions of the other members of each anchor's class: (b, k - 1) for a batch with k of each class.

    Raises `ValueError` unless every class has the same number of members, at least two.
    """
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    same.fill_diagonal_(False)
    counts = same.sum(dim=1)
    if len(labels) == 0 or counts.min() != counts.max() or counts[0] == 0:
        raise ValueError("every class of the batch needs the same number of members, at least two")
    return same.nonzero()[:, 1].view(len(labels), -1)
