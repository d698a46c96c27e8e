"""Subnetworks of several capacities from one score per weight (PrunNet, Sun et al. 2025).

Capacity c keeps, in each tensor on its own, the share c of weights with the largest |score|. The masks of different
capacities come from one tensor of scores and are therefore nested. Scores are kept outside the network, in a
`ScoreMaps` whose parameter names are those of the weights, so any `nn.Module` can be pruned as it stands.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.masks.order_statistics import magnitude_thresholds
from subnetbench.methods.parts.networks.layer_choice import MASKABLE, choose_parameters, is_depthwise
from subnetbench.methods.parts.networks.named_tensors import put_tensor


def score_thresholds(scores: Mapping[str, Tensor], capacities: Sequence[Capacity]) -> dict[str, Tensor]:
    """The smallest |score| that each capacity keeps, by name of the tensor: (len(capacities),), on its device.

    Each tensor is cut on its own. On a CPU as many threads are used as PyTorch does.
    """
    sparsities = [capacity.sparsity for capacity in capacities]
    if not all(score.is_cpu for score in scores.values()):
        return {name: magnitude_thresholds(score, sparsities) for name, score in scores.items()}
    # NumPy works on one thread and without the interpreter's lock; large tensors first, so none is waited for.
    by_size = sorted(scores, key=lambda name: -scores[name].numel())
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = pool.map(lambda name: magnitude_thresholds(scores[name], sparsities), by_size)
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
    result: Tensor = torch.ops.aten.hardshrink_backward.grad_input(values, scores, bound, grad_input=out)
    return result


@torch.no_grad()
def masked_weights(
    weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], capacity: Capacity
) -> dict[str, Tensor]:
    """The weights of one subnetwork by name, zero where it keeps nothing: to load into a plain copy of the network."""
    thresholds = score_thresholds(scores, [capacity])
    return {
        name: keep_values(weight, scores[name], thresholds[name][0], out=torch.empty_like(weight))
        for name, weight in weights.items()
    }


def prunable_parameters(
    network: nn.Module, *, dense: Iterable[str] = ("reduction",), depthwise: bool = True, biases: bool = True
) -> dict[str, nn.Parameter]:
    """Weights and biases of all convolutions, linear layers and attention projections, by name, in their order.

    `dense` names modules, by any part of their dotted path, that are not pruned; by default the patch-merging
    reductions of Swin transformers. `depthwise=False` leaves out depthwise convolutions, those with a group for each
    of several input channels.

    Raises:
        UserError: Where nothing is left.
    """
    kept_dense = set(dense)

    def wanted(name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
        if not isinstance(owner, MASKABLE) or parameter.ndim < 2 or (not depthwise and is_depthwise(owner)):
            return False
        return not kept_dense & set(name.split("."))

    return {chosen.name: chosen.parameter for chosen in choose_parameters(network, wanted, biases=biases)}


def backbone_weights(network: nn.Module) -> int:
    """Weights and biases of the convolutions and linear layers of a network's part `backbone`."""
    return sum(parameter.numel() for parameter in prunable_parameters(network.get_submodule("backbone")).values())


class ScoreMaps(nn.Module):
    """A learnable score for every weight in `parameters`, under the same names."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            put_tensor(self, name, nn.Parameter(torch.empty_like(parameter)))

    def as_dict(self) -> dict[str, nn.Parameter]:
        """The scores by the name of their weight."""
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
