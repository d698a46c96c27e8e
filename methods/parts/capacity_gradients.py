"""The pieces of PrunNet's training step: one gradient a capacity, combined into gradients of weights and scores.

The network depends on weights W and scores s only through E = mask * W. So a subnetwork is the shared network run
functionally with E in the place of W, and G = dL/dE gives both gradients: mask * G for the weight, and
mask * sign(s) * W * G for the score (straight-through, and masked as the official trainer does). Nothing is copied
but E, and one gradient a capacity is stored. In a step:

    subnetworks.select()                                   # once, after the scores have changed
    dense = gradients of the dense loss
    for i in range(len(subnetworks)):
        leaves = subnetworks.leaves(i)                     # valid until the next call
        raw = gradients of loss i with respect to the leaves (averaged over micro-batches and processes)
        subnetworks.finish(i, raw, others, clip_norm)      # masks and clips in place
    weight_gradients, score_gradients = subnetworks.combine([dense, *finished], ...)
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from subnetbench.harness.errors import UserError, unknown
from subnetbench.methods.parts.capacities import keep_mask, score_thresholds
from subnetbench.methods.parts.gradient_integration import combine, conflict_aware, draw_orders, pcgrad, row_products
from subnetbench.methods.parts.norm_clipping import clip_factor, total_norm

IntegrationRule = Literal["conflict_aware", "sum", "pcgrad"]
INTEGRATION_RULES: tuple[IntegrationRule, ...] = ("conflict_aware", "sum", "pcgrad")

Gradients = dict[str, Tensor]


class Subnetworks:
    """The subnetworks of one network at `sparsities`: masked weights, and the gradients that come back.

    `weights` are the prunable tensors by name, `scores` those of the same names; or a sequence of one score mapping
    a subnetwork (masks are then not nested). Neither is copied.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        scores: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        sparsities: Sequence[float],
    ) -> None:
        self.weights, self.sparsities = weights, tuple(sparsities)
        self.shared_scores = isinstance(scores, Mapping)
        self._scores = [scores] * len(self.sparsities) if isinstance(scores, Mapping) else list(scores)
        if len(self._scores) != len(self.sparsities):
            raise UserError(
                "one score map for all sparsities or one for each", field="scores", value=len(self._scores)
            )
        self._thresholds: list[dict[str, Tensor]] = []
        self._leaves: dict[str, Tensor] = {}
        self._masks: tuple[int, dict[str, Tensor]] = (-1, {})

    def __len__(self) -> int:
        return len(self.sparsities)

    def select(self) -> None:
        """Find the score thresholds of all subnetworks, for as long as the scores stay as they are."""
        self._masks = (-1, {})
        if self.shared_scores:
            found = {name: score_thresholds(score, self.sparsities) for name, score in self._scores[0].items()}
            self._thresholds = [{name: values[i] for name, values in found.items()} for i in range(len(self))]
        else:
            self._thresholds = [
                {name: score_thresholds(score, [sparsity])[0] for name, score in scores.items()}
                for scores, sparsity in zip(self._scores, self.sparsities, strict=True)
            ]

    def masks(self, index: int) -> dict[str, Tensor]:
        """Booleans by name: the weights that subnetwork `index` keeps."""
        if not self._thresholds:
            self.select()
        if self._masks[0] != index:
            thresholds = self._thresholds[index]
            masks = {name: keep_mask(score, thresholds[name]) for name, score in self._scores[index].items()}
            self._masks = (index, masks)
        return self._masks[1]

    @torch.no_grad()
    def leaves(self, index: int) -> dict[str, Tensor]:
        """Masked weights by name, to differentiate with respect to. The next call overwrites them."""
        for name, mask in self.masks(index).items():
            weight = self.weights[name]
            if name not in self._leaves:
                self._leaves[name] = torch.empty_like(weight, requires_grad=True)
            torch.mul(weight, mask, out=self._leaves[name])
        return self._leaves

    @torch.no_grad()
    def finish(
        self,
        index: int,
        gradients: Mapping[str, Tensor | None],
        others: Iterable[Tensor | None] = (),
        *,
        clip_norm: float | None = 100.0,
        train_scores: bool = True,
    ) -> tuple[Gradients, Tensor]:
        """Mask and clip, in place, the gradients with respect to the leaves of subnetwork `index`.

        The norm is that of masked weight gradients, unmasked score gradients (if scores are trained) and `others`,
        the gradients of all other parameters, which a subnetwork does not change. Returns the gradients and the
        norm before clipping.
        """
        masks, scores = self.masks(index), self._scores[index]
        finished = {name: _present(gradients[name], self.weights[name]) for name in masks}
        of_scores = []
        if train_scores and clip_norm is not None:
            of_scores = [
                total_norm([gradient * _signed(self.weights[name], scores[name])])
                for name, gradient in finished.items()
            ]
        for name, gradient in finished.items():
            gradient.mul_(masks[name])
        norm = total_norm([*finished.values(), *of_scores, *(other for other in others if other is not None)])
        if clip_norm is not None:
            torch._foreach_mul_(list(finished.values()), clip_factor(norm, clip_norm))
        return finished, norm

    def draw_orders(
        self,
        generator: torch.Generator,
        *,
        rule: IntegrationRule = "conflict_aware",
        per_filter: bool = True,
        train_scores: bool = True,
    ) -> Tensor:
        """Random visiting orders for `combine`, the same on all processes if the generator is."""
        by_row = [False] if rule == "pcgrad" else self._by_row(per_filter, train_scores)
        orders = draw_orders(len(self) + 1, by_row, generator)
        return orders[0] if rule == "pcgrad" else orders

    @torch.no_grad()
    def combine(
        self,
        gradients: Sequence[MutableMapping[str, Tensor]],
        orders: Tensor | None = None,
        *,
        rule: IntegrationRule = "conflict_aware",
        exponent: float = 0.5,
        per_filter: bool = True,
        use_dot: bool = False,
        train_scores: bool = True,
    ) -> tuple[Gradients, list[Gradients]]:
        """Gradients of the weights, and of each score map, from those of the dense network and the subnetworks.

        `gradients[0]` are the dense network's with respect to the weights, the others come from `finish`. Every
        weight tensor is integrated on its own, and so is every shared score tensor; score maps of their own take
        their subnetwork's gradient as it is. With rule `pcgrad` all weights and scores are one flat vector, and the
        projected gradients are summed. `orders` is (tensors, n, n), weight and score of a tensor in turn; (n, n)
        for `pcgrad`; not needed for `sum`. `gradients` are emptied on the way.
        """
        names = list(self.weights)
        n = len(gradients)
        stacks = {name: [part.pop(name) for part in gradients] for name in names}
        integrate_scores = train_scores and self.shared_scores
        if rule == "sum":
            ones = next(iter(self.weights.values())).new_ones(1, n)
            coefficients = [ones] * (len(names) * (1 + integrate_scores))
        elif orders is None:
            raise UserError("needs visiting orders", field="rule", value=rule)
        else:
            products = []
            for name in names:
                products.append(row_products(stacks[name]))
                if integrate_scores:
                    products.append(row_products(stacks[name], self._signed(name)))
            if rule == "pcgrad":
                gram = torch.stack([matrix.double().sum(dim=0) for matrix in products]).sum(dim=0)
                coefficients = [pcgrad(gram, orders).sum(dim=0, keepdim=True)] * len(products)
            elif rule == "conflict_aware":
                by_row = self._by_row(per_filter, train_scores)
                plans = conflict_aware(products, orders, by_row, exponent=exponent, use_dot=use_dot)
                coefficients = [plan.coefficients for plan in plans]
            else:
                raise unknown("integration rule", rule, INTEGRATION_RULES)

        in_turn = iter(coefficients)
        weight_gradients: Gradients = {}
        score_gradients: list[Gradients] = [{} for _ in range(1 if self.shared_scores else len(self))]
        for name in names:
            # Each tensor's gradients are freed in turn, so the results need no room of their own.
            stack = stacks.pop(name)
            weight_gradients[name] = combine(stack, next(in_turn))
            if integrate_scores:
                score_gradients[0][name] = combine(stack, next(in_turn), self._signed(name))
            elif train_scores:
                for i, part in enumerate(stack[1:]):
                    score_gradients[i][name] = part * self._signed(name, i)
        return weight_gradients, score_gradients

    def _signed(self, name: str, index: int = 0) -> Tensor:
        return _signed(self.weights[name], self._scores[index][name])

    def _by_row(self, per_filter: bool, train_scores: bool) -> list[bool]:
        copies = 1 + (train_scores and self.shared_scores)
        return [per_filter and weight.dim() > 2 for weight in self.weights.values() for _ in range(copies)]


def _signed(weight: Tensor, score: Tensor) -> Tensor:
    """What turns a gradient with respect to mask * weight into one of the score."""
    return score.detach().sign().mul_(weight.detach())


def _present(gradient: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if gradient is None else gradient
