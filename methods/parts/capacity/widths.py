"""Combining the gradients that the widths of a slimmable network give: conflict-aware (PrunNet's rule) and SFSC.

Gradients are dictionaries by parameter name, one a width, with None (or no entry) where a width does not use the
parameter. With respect to a shared weight they are of full size and zero outside a width's slice. The results are
written over the gradients that come in. In a step of the conflict-aware rule:

    for i in (full width first):
        leaves = slices.leaves(i) | the other parameters
        raw = gradients of the loss at width i with respect to the leaves (averaged over micro-batches and processes)
        gradients.append(slices.finish(i, raw, clip_norm=100 unless full))
    combined = integrate_widths(gradients, slices.weights, orders)
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from subnetbench.methods.parts.capacity.integration import (
    IntegrationRule,
    combine_in_place,
    integrate_in_place,
    layout_of,
    pcgrad,
    row_products,
)
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork
from subnetbench.methods.parts.capacity.slimmable_layers import SlimmableLayer
from subnetbench.methods.parts.optim.clipping import clip_in_place

WidthGradients = Mapping[str, Tensor | None]


class WidthSlices:
    """What each width uses of the shared weights of a slimmable network, as leaves and as room for gradients.

    Gradients with respect to the slices, not to the whole weights, save the autograd engine from padding them. Each
    width has room of the size of the weights for them, kept from step to step; that of a weight lies in one piece for
    all widths, as `row_products` likes it best.
    """

    def __init__(self, network: SlimmableNetwork) -> None:
        self.weights = shared_weights(network)
        self._widths = len(network.switch.widths)
        self._owners = {name: network.get_submodule(name.rpartition(".")[0]) for name in self.weights}
        self._room: dict[str, Tensor] = {}

    def leaves(self, index: int) -> dict[str, Tensor]:
        """The slices of one width by name, to run the network functionally with."""
        found = {}
        for name, weight in self.weights.items():
            owner, kind = self._owner(name)
            # Convolutions want their weights in one piece.
            found[name] = owner.part(kind, weight.detach(), index).contiguous().requires_grad_()
        return found

    @torch.no_grad()
    def finish(self, index: int, gradients: WidthGradients, *, clip_norm: float | None = None) -> dict[str, Tensor]:
        """The gradients of one width, by name, those of the slices at their positions among zeros.

        With `clip_norm` all are scaled down together where their total norm is larger.
        """
        finished = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        if clip_norm is not None:
            clip_in_place(list(finished.values()), clip_norm)
        for name, weight in self.weights.items():
            if name not in self._room:
                self._room[name] = weight.new_zeros(self._widths, *weight.shape)
            gradient, room = finished.get(name), self._room[name][index]
            owner, kind = self._owner(name)
            target = owner.region(kind, room, index)
            target.zero_() if gradient is None else target.copy_(gradient.reshape(target.shape))
            finished[name] = room
        return finished

    def _owner(self, name: str) -> tuple[SlimmableLayer, str]:
        owner = self._owners[name]
        assert isinstance(owner, SlimmableLayer)
        return owner, name.rpartition(".")[2]


def shared_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Weights and biases of the width-switchable convolutions and linear layers, by name, in the network's order."""
    return {
        f"{path}.{kind}" if path else kind: parameter
        for path, module in network.named_modules()
        if isinstance(module, SlimmableLayer) and not isinstance(module, nn.LayerNorm)
        for kind, parameter in module.named_parameters(recurse=False)
    }


def filter_by_filter(weights: Mapping[str, Tensor], per_filter: bool = True) -> list[bool]:
    """Which of the weights are integrated row by row: those of convolutions. For `draw_orders`."""
    return [per_filter and weight.dim() > 2 for weight in weights.values()]


@torch.no_grad()
def integrate_widths(
    gradients: Sequence[WidthGradients],
    weights: Mapping[str, Tensor],
    orders: Tensor | None = None,
    *,
    rule: IntegrationRule = "conflict_aware",
    exponent: float = 0.5,
    per_filter: bool = True,
    use_dot: bool = False,
) -> dict[str, Tensor]:
    """One gradient a parameter; `gradients[0]` are the full width's.

    Those of `weights` (see `shared_weights`) are integrated as in `integrate_in_place`, each taking its turn in
    `orders`. Of the other parameters each takes the gradient of the first width that has one: batch norms their own
    width's, what all widths share (the classifier) the full width's.
    """
    stacks = []
    for name, weight in weights.items():
        parts = (part.get(name) for part in gradients)
        layout = layout_of(weight)
        stacks.append([(torch.zeros_like(weight) if g is None else g).contiguous(memory_format=layout) for g in parts])
    by_row = filter_by_filter(weights, per_filter)
    results = integrate_in_place(stacks, orders, by_row=by_row, rule=rule, exponent=exponent, use_dot=use_dot)
    combined = {name: result for name, (result,) in zip(weights, results, strict=True)}
    for part in gradients:
        for name, gradient in part.items():
            if gradient is not None:
                combined.setdefault(name, gradient)
    return combined


@torch.no_grad()
def merge_sfsc(gradients: Sequence[WidthGradients], orders: Tensor) -> dict[str, Tensor]:
    """SFSC's merge: PCGrad over all parameters as one flat vector, then the mean over the n widths.

    `orders` (n, n): the order in which gradient i visits the others. A width that does not use a parameter counts
    as zero there; parameters that some width does not use are summed, not averaged, as in the published code.
    """
    n = len(gradients)
    by_name: dict[str, tuple[list[int], list[Tensor]]] = {}
    for i, part in enumerate(gradients):
        for name, gradient in part.items():
            if gradient is not None:
                users, stack = by_name.setdefault(name, ([], []))
                users.append(i)
                stack.append(gradient.contiguous())
    gram = orders.new_zeros(n, n, dtype=torch.float64)
    for users, stack in by_name.values():
        chosen = torch.tensor(users)
        gram[chosen[:, None], chosen] += row_products(stack)[0].double().sum(dim=0)
    projected = pcgrad(gram, orders)
    merged = {}
    for name, (users, stack) in by_name.items():
        factors = projected.mean(dim=0) if len(users) == n else projected.sum(dim=0)[users]
        merged[name] = combine_in_place(stack, factors.unsqueeze(0))[0]
    return merged
