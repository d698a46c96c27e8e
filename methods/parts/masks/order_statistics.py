"""Which entries of a tensor are the largest: ranks, thresholds and masks, for one or many sparsities."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.method import UserError

# Below this size one partition is cheaper than bracketing the wanted ranks with a sample.
_SMALL = 1 << 15
_CHUNK = 1 << 17


def removal_rank(sparsity: float, entries: int) -> int:
    """1-based rank of the smallest magnitude that is kept when a share `sparsity` of the entries is removed.

    1 + round(0.01 (100 sparsity) (entries - 1)), evaluated as written and with Python's rounding (halves to the
    even number), as edge-popup and PrunNet do. Sparsity 0 keeps all, 1 keeps the largest.
    """
    _check(sparsity)
    return 1 + round(0.01 * (100 * sparsity) * (entries - 1))


def smallest(values: Tensor, ranks: Sequence[int]) -> Tensor:
    """The order statistics of `values` at 1-based `ranks`: shape (len(ranks),), on the same device, exact.

    All of them cost about one pass over the values on a CPU and one sort, without waiting for it, on an accelerator.
    """
    return _order_statistics(values, ranks, magnitude=False)


def magnitude_thresholds(score: Tensor, sparsities: Sequence[float]) -> Tensor:
    """For each sparsity the smallest |score| that is kept: shape (len(sparsities),), on the device of `score`.

    It costs as much as `smallest`, whatever the number of sparsities.
    """
    return _order_statistics(score, [removal_rank(s, score.numel()) for s in sparsities], magnitude=True)


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


def _order_statistics(values: Tensor, ranks: Sequence[int], *, magnitude: bool) -> Tensor:
    flat = values.detach().flatten()
    if torch.compiler.is_compiling() or (flat.is_cpu and flat.dtype not in (torch.float32, torch.float64)):
        flat = flat.abs() if magnitude else flat
        return torch.stack([flat.kthvalue(rank).values for rank in ranks])
    if flat.is_cpu:
        return torch.from_numpy(_select(flat.numpy(), [rank - 1 for rank in ranks], magnitude))
    ordered = (flat.abs() if magnitude else flat).sort().values
    return torch.stack([ordered[rank - 1] for rank in ranks])


def _select(values: np.ndarray, ranks: Sequence[int], magnitude: bool) -> np.ndarray:
    """The values, or |values|, of the given 0-based ranks, in their order.

    A sample gives for each rank an interval that almost surely holds it; one pass, piece by piece in cache, counts
    what lies below the intervals and collects what lies inside. Where an interval fails, a full partition follows.
    """
    n = values.size
    if n <= _SMALL:
        return _partition(values, ranks, magnitude)
    sample_size = min(max(n // 32, 4096), 1 << 16)
    # Multiples of the golden ratio spread evenly without resonating with the layout of the tensor.
    positions = (np.arange(sample_size) * 0.6180339887498949 % 1.0 * n).astype(np.int64)
    sample = values[positions]
    sample = np.sort(np.abs(sample) if magnitude else sample)
    intervals = []
    for rank in ranks:
        share = rank / n
        centre, spread = share * sample_size, 4 * math.sqrt(sample_size * share * (1 - share)) + 2
        first, last = math.floor(centre - spread), math.ceil(centre + spread)
        intervals.append((sample[first] if first >= 0 else -np.inf, sample[last] if last < sample_size else np.inf))
    below = [0] * len(ranks)
    inside: list[list[np.ndarray]] = [[] for _ in ranks]
    buffers = np.empty(_CHUNK, values.dtype), np.empty(_CHUNK, bool), np.empty(_CHUNK, bool)
    for start in range(0, n, _CHUNK):
        piece = values[start : start + _CHUNK]
        compared, under, within = (buffer[: piece.size] for buffer in buffers)
        if magnitude:
            np.abs(piece, out=compared)
        else:
            compared = piece
        for i, (low, high) in enumerate(intervals):
            np.less(compared, low, out=under)
            below[i] += int(np.count_nonzero(under))
            np.less_equal(compared, high, out=within)
            inside[i].append(compared[np.flatnonzero(np.greater(within, under, out=within))])
    chosen = np.empty(len(ranks), values.dtype)
    for i, rank in enumerate(ranks):
        candidates = np.concatenate(inside[i])
        position = rank - below[i]
        if not 0 <= position < candidates.size:
            return _partition(values, ranks, magnitude)
        candidates.partition(position)
        chosen[i] = candidates[position]
    return chosen


def _partition(values: np.ndarray, ranks: Sequence[int], magnitude: bool) -> np.ndarray:
    return np.partition(np.abs(values) if magnitude else values, sorted(set(ranks)))[list(ranks)]


def _check(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise UserError("a sparsity is the fraction removed", field="sparsity", value=sparsity, allowed="0 to 1")
