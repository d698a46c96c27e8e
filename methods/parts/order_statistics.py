"""Which entries of a tensor are the largest: ranks, thresholds and masks, for one or many sparsities."""

from collections.abc import Sequence

import torch
from torch import Tensor

from subnetbench.harness.errors import UserError


def removal_rank(sparsity: float, entries: int) -> int:
    """1-based rank of the smallest magnitude that is kept when a share `sparsity` of the entries is removed.

    1 + round(0.01 (100 sparsity) (entries - 1)), evaluated as written and with Python's rounding (halves to the
    even number), as edge-popup and PrunNet do. Sparsity 0 keeps all, 1 keeps the largest.
    """
    _check(sparsity)
    return 1 + round(0.01 * (100 * sparsity) * (entries - 1))


def smallest(values: Tensor, ranks: Sequence[int]) -> Tensor:
    """The order statistics of `values` at 1-based `ranks`: shape (len(ranks),), on the same device, exact.

    One partition of the values serves all ranks; on accelerators the result stays on the device.
    """
    flat = values.detach().flatten()
    if flat.device.type != "cpu":
        return flat.sort().values[torch.tensor([rank - 1 for rank in ranks], device=flat.device)]
    if torch.compiler.is_compiling() or flat.dtype not in (torch.float32, torch.float64):
        return torch.stack([flat.kthvalue(rank).values for rank in ranks])
    # NumPy partitions in half the time of torch's k-th value, and each rank needs only what lies below the last.
    found, below = torch.empty(len(ranks), dtype=flat.dtype), flat.numpy().copy()
    for place in sorted(range(len(ranks)), key=lambda place: -ranks[place]):
        below.partition(ranks[place] - 1)
        below = below[: ranks[place]]
        found[place] = float(below[-1])
    return found


def magnitude_thresholds(score: Tensor, sparsities: Sequence[float]) -> Tensor:
    """For each sparsity the smallest |score| that is kept: shape (len(sparsities),)."""
    return smallest(score.detach().abs(), [removal_rank(sparsity, score.numel()) for sparsity in sparsities])


def nested_masks(score: Tensor, sparsities: Sequence[float]) -> list[Tensor]:
    """Boolean masks that keep |score| >= threshold, one a sparsity, from a single pass over the scores.

    Masks of growing sparsity are subsets of each other. Entries equal to the threshold are all kept, so without
    ties `entries - removal_rank + 1` remain.
    """
    magnitude = score.detach().abs()
    return [magnitude >= threshold for threshold in magnitude_thresholds(score, sparsities)]


def sorted_rule_mask(score: Tensor, sparsity: float) -> Tensor:
    """The rule of the released edge-popup code: sort |score| and remove exactly floor((1 - kept) n) entries.

    Its argument is the fraction kept; computing it from `sparsity` and back is part of the rule, since the
    rounding decides at whole numbers. It differs from `nested_masks` by at most an entry, and in ties.
    """
    _check(sparsity)
    kept = 1.0 - sparsity
    removed = int((1.0 - kept) * score.numel())
    return keep_largest(score.detach().abs(), score.numel() - removed)


def keep_largest(values: Tensor, count: int) -> Tensor:
    """Boolean mask of exactly `count` largest entries; among equal ones the earlier positions are kept."""
    flat = values.detach().flatten()
    keep = torch.zeros(flat.shape, dtype=torch.bool, device=flat.device)
    keep[torch.sort(flat, descending=True, stable=True).indices[:count]] = True
    return keep.view(values.shape)


def _check(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise UserError("a sparsity is the fraction removed", field="sparsity", value=sparsity, allowed="0 to 1")
