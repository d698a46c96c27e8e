"""Subnetworks of several capacities from one score per weight (PrunNet, Sun et al. 2025).

Capacity c keeps, in each tensor on its own, the share c of weights with the largest |score|. The masks of different
capacities come from one tensor of scores and are therefore nested. Scores are kept outside the network, in a
`ScoreMaps` whose parameter names are those of the weights, so any `nn.Module` can be pruned as it stands.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.errors import UserError
from subnetbench.methods.parts.layer_choice import MASKABLE, choose_parameters, is_depthwise
from subnetbench.methods.parts.order_statistics import removal_rank

# Below this size one partition is cheaper than bracketing the wanted ranks with a sample.
_SMALL = 1 << 15
_CHUNK = 1 << 17


def capacity_to_sparsity(capacity: float) -> float:
    """The share to remove; rounded, so that 0.8 gives 0.2 and not 0.19999999999999996. Raises `UserError`."""
    if not 0 < capacity <= 1:
        raise UserError("not a share of weights to keep", field="capacity", value=capacity, allowed="> 0, <= 1")
    return round(1 - capacity, 12)


def score_thresholds(scores: Tensor, sparsities: Sequence[float]) -> Tensor:
    """The smallest |score| that each of `sparsities` keeps: one value a sparsity, on the device of `scores`.

    All of them cost about one pass over `scores` on the CPU and one sort, without waiting for it, on a GPU.
    """
    ranks = [removal_rank(sparsity, scores.numel()) - 1 for sparsity in sparsities]
    flat = scores.detach().flatten()
    if flat.is_cpu and flat.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(_select(flat.numpy(), ranks))
    ordered = flat.abs().sort().values
    return torch.stack([ordered[rank] for rank in ranks])


def all_score_thresholds(scores: Mapping[str, Tensor], sparsities: Sequence[float]) -> dict[str, Tensor]:
    """`score_thresholds` of many tensors, on the CPU with as many threads as PyTorch uses."""
    if not all(score.is_cpu for score in scores.values()):
        return {name: score_thresholds(score, sparsities) for name, score in scores.items()}
    # NumPy works on one thread and without the interpreter's lock; large tensors first, so none is waited for.
    by_size = sorted(scores, key=lambda name: -scores[name].numel())
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = pool.map(lambda name: score_thresholds(scores[name], sparsities), by_size)
        thresholds = dict(zip(by_size, found, strict=True))
    return {name: thresholds[name] for name in scores}


def keep_mask(scores: Tensor, threshold: Tensor) -> Tensor:
    """Booleans in the shape of `scores`: where |score| reaches `threshold`. Ties are all kept."""
    return scores.detach().abs() >= threshold


def keep_values(values: Tensor, scores: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    """`values` where |score| reaches `threshold` and 0 elsewhere, written to `out` (which may be `values`)."""
    if not (scores.is_cpu and scores.dtype in (torch.float32, torch.float64)):
        return torch.mul(values, keep_mask(scores, threshold), out=out)
    # The derivative of hard shrinkage is this very function, in one vectorised pass without a mask; it keeps what
    # is larger than its bound, hence the number just below.
    bound = float(torch.nextafter(threshold, torch.full_like(threshold, -torch.inf)))
    return torch.ops.aten.hardshrink_backward.grad_input(values, scores, bound, grad_input=out)


def capacity_masks(scores: Tensor, sparsities: Sequence[float]) -> list[Tensor]:
    """One boolean mask a sparsity; a larger sparsity keeps a subset of what a smaller one keeps."""
    return [keep_mask(scores, threshold) for threshold in score_thresholds(scores, sparsities)]


@torch.no_grad()
def masked_weights(weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """The weights of one subnetwork by name, zero where it keeps nothing: to load into a plain copy of the network."""
    thresholds = all_score_thresholds(scores, [sparsity])
    return {
        name: keep_values(weight, scores[name], thresholds[name][0], out=torch.empty_like(weight))
        for name, weight in weights.items()
    }


def straight_through(gradient: Tensor, weight: Tensor, score: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and score from the gradient with respect to mask * weight, all of one shape.

    The score's is the straight-through one, with the mask's derivative taken as that of |score|; it is not masked.
    """
    return gradient * mask, gradient * weight * score.sign()


def prunable_parameters(
    network: nn.Module, *, dense: Iterable[str] = ("reduction",), depthwise: bool = True, biases: bool = True
) -> dict[str, nn.Parameter]:
    """Weights and biases of all convolutions, linear layers and attention projections, by name, in their order.

    `dense` names modules, by any part of their dotted path, that are not pruned; by default the patch-merging
    reductions of Swin transformers. `depthwise=False` leaves out depthwise convolutions, those with a group for each
    of several input channels. Raises `UserError` where nothing is left.
    """
    kept_dense = set(dense)

    def wanted(name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
        if not isinstance(owner, MASKABLE) or parameter.ndim < 2 or (not depthwise and is_depthwise(owner)):
            return False
        return not kept_dense & set(name.split("."))

    return {chosen.name: chosen.parameter for chosen in choose_parameters(network, wanted, biases=biases)}


class ScoreMaps(nn.Module):
    """A learnable score for every weight in `parameters`, under the same names."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(leaf, nn.Parameter(torch.empty_like(parameter)))

    def as_dict(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    @torch.no_grad()
    def initialise_uniform(self, generator: torch.Generator | None = None) -> None:
        """Uniform in +-1/sqrt(fan_in), for biases with the fan-in of their weight, as the official code does."""
        scores = self.as_dict()
        for name, score in scores.items():
            weight = scores.get(f"{name.removesuffix('bias')}weight", score)
            bound = 1 / math.sqrt(max(1, weight[0].numel()))
            score.uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def initialise_from_weights(self, parameters: Mapping[str, Tensor]) -> None:
        """Weight scores rank by magnitude at first: (W - mean W) / std W * sqrt(2 / fan_in). Biases keep theirs."""
        for name, score in self.as_dict().items():
            if name.endswith("weight"):
                weight = parameters[name]
                score.copy_((weight - weight.mean()) * (math.sqrt(2 / weight[0].numel()) / weight.std()))


def _select(values: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """The |values| of the given 0-based ranks, in their order.

    A sample gives for each rank an interval that almost surely holds it; one pass, piece by piece in cache, counts
    what lies below the intervals and collects what lies inside. Where an interval fails, a full partition follows.
    """
    n = values.size
    if n <= _SMALL:
        return _partition(values, ranks)
    sample_size = min(max(n // 32, 4096), 1 << 16)
    # Multiples of the golden ratio spread evenly without resonating with the layout of the tensor.
    positions = (np.arange(sample_size) * 0.6180339887498949 % 1.0 * n).astype(np.int64)
    sample = np.sort(np.abs(values[positions]))
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
        magnitude, under, within = (buffer[: piece.size] for buffer in buffers)
        np.abs(piece, out=magnitude)
        for i, (low, high) in enumerate(intervals):
            np.less(magnitude, low, out=under)
            below[i] += int(np.count_nonzero(under))
            np.less_equal(magnitude, high, out=within)
            inside[i].append(magnitude[np.flatnonzero(np.greater(within, under, out=within))])
    chosen = np.empty(len(ranks), values.dtype)
    for i, rank in enumerate(ranks):
        candidates = np.concatenate(inside[i])
        place = rank - below[i]
        if not 0 <= place < candidates.size:
            return _partition(values, ranks)
        candidates.partition(place)
        chosen[i] = candidates[place]
    return chosen


def _partition(values: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    return np.partition(np.abs(values), sorted(set(ranks)))[list(ranks)]
