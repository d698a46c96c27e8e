"""The pieces of PrunNet's training step: one gradient a capacity, combined into gradients of weights and scores.

The network depends on weights W and scores s only through E = mask * W. So a subnetwork is the shared network run
functionally with E instead of W, and G = dL/dE gives both gradients: mask * G for the weight, and
mask * sign(s) * W * G for the score (straight-through, and masked as the official trainer does). Nothing is copied
but E, and one gradient a capacity is stored. In a step:

    subnetworks.select()                                   # once, after the scores have changed
    dense = subnetworks.keep_dense(gradients of the dense loss)
    for i in range(len(subnetworks)):
        leaves = subnetworks.leaves(i)
        raw = gradients of loss i with respect to the leaves (averaged over micro-batches and processes)
        finished = subnetworks.finish(i, raw, others)      # masked and clipped, written over the leaves
    weight_gradients, score_gradients = subnetworks.combine([dense, *finished], ...)
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.capacity.integration import (
    IntegrationRule,
    RowScale,
    as_rows,
    draw_orders,
    integrate_in_place,
    layout_of,
    pieces,
)
from subnetbench.methods.parts.capacity.scores import keep_mask, keep_values, score_thresholds
from subnetbench.methods.parts.optim.clipping import scale_to_norm, total_norm

Gradients = dict[str, Tensor]


class Subnetworks:
    """The subnetworks of one network at `capacities`: masked weights, and the gradients that come back.

    `weights` are the prunable tensors by name, `scores` those of the same names; or a sequence of one score mapping
    a subnetwork (masks are then not nested). Neither is copied. Each subnetwork has room of the size of the weights,
    which holds first its masked weights, then its gradients, and so have the dense gradients; it is kept from step to
    step, since fresh memory costs as much time as the arithmetic here.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        scores: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        capacities: Sequence[Capacity],
    ) -> None:
        self.weights, self.capacities = weights, tuple(capacities)
        self.shared_scores = isinstance(scores, Mapping)
        self._scores = [scores] * len(self.capacities) if isinstance(scores, Mapping) else list(scores)
        if len(self._scores) != len(self.capacities):
            raise UserError("one score map for all capacities or one for each", field="scores", value=len(self._scores))
        self._thresholds: list[dict[str, Tensor]] = []
        self._room: list[dict[str, Tensor]] = [{} for _ in self.capacities]
        self._dense_room: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.capacities)

    def select(self) -> None:
        """Find the score thresholds of all subnetworks, for as long as the scores stay as they are."""
        if self.shared_scores:
            found = score_thresholds(self._scores[0], self.capacities)
            self._thresholds = [{name: values[i] for name, values in found.items()} for i in range(len(self))]
        else:
            self._thresholds = [
                {name: values[0] for name, values in score_thresholds(scores, [capacity]).items()}
                for scores, capacity in zip(self._scores, self.capacities, strict=True)
            ]

    def masks(self, index: int) -> dict[str, Tensor]:
        """Booleans by name: the weights that subnetwork `index` keeps."""
        scores = self._scores[index]
        return {name: keep_mask(scores[name], self._threshold(index, name)) for name in self.weights}

    @torch.no_grad()
    def leaves(self, index: int) -> dict[str, Tensor]:
        """Masked weights by name, to differentiate with respect to, until `finish`."""
        room = self._room[index]
        for name, weight in self.weights.items():
            if name not in room:
                room[name] = torch.empty_like(weight, memory_format=layout_of(weight)).requires_grad_()
            keep_values(weight, self._scores[index][name], self._threshold(index, name), out=room[name])
        return room

    @torch.no_grad()
    def keep_dense(self, gradients: Mapping[str, Tensor | None]) -> Gradients:
        """The dense network's gradients with respect to the weights, copied to their room."""
        for name, weight in self.weights.items():
            if name not in self._dense_room:
                self._dense_room[name] = torch.empty_like(weight, memory_format=layout_of(weight))
            gradient = gradients[name]
            self._dense_room[name].zero_() if gradient is None else self._dense_room[name].copy_(gradient)
        return self._dense_room

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
        """Mask and clip the gradients with respect to the leaves of subnetwork `index`.

        The norm is that of masked weight gradients, unmasked score gradients (if scores are trained) and `others`,
        the gradients of all other parameters, which a subnetwork does not change. Returns the gradients, written over
        the leaves, and the norm before clipping.
        """
        finished = {name: leaf.detach() for name, leaf in self._room[index].items()}
        squares = [total_norm([other for other in others if other is not None]).square()]
        for name, weight in self.weights.items():
            gradient = gradients[name]
            if gradient is None:
                finished[name].zero_()
                continue
            layout = layout_of(weight)
            score, threshold = self._scores[index][name], self._threshold(index, name)
            rows, weight_rows, score_rows, kept_rows = (
                as_rows(tensor, layout) for tensor in (gradient, weight, score, finished[name])
            )
            for cut in pieces(rows):
                if train_scores:
                    squares.append(_sum_of_squares(score_rows[cut].sign().mul_(weight_rows[cut]).mul_(rows[cut])))
                kept = keep_values(rows[cut], score_rows[cut], threshold, out=kept_rows[cut])
                squares.append(_sum_of_squares(kept))
        norm = torch.stack([square.to(squares[-1].device) for square in squares]).sum().sqrt()
        if clip_norm is not None:
            scale_to_norm(list(finished.values()), norm, clip_norm)
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
        if rule == "pcgrad":
            return draw_orders(len(self) + 1, [False], generator)[0]
        turns = 2 if train_scores and self.shared_scores else 1
        return draw_orders(len(self) + 1, [rows for rows in self._by_row(per_filter) for _ in range(turns)], generator)

    @torch.no_grad()
    def combine(
        self,
        gradients: Sequence[Mapping[str, Tensor]],
        orders: Tensor | None = None,
        *,
        rule: IntegrationRule = "conflict_aware",
        exponent: float = 0.5,
        per_filter: bool = True,
        use_dot: bool = False,
        train_scores: bool = True,
    ) -> tuple[Gradients, list[Gradients]]:
        """Gradients of the weights, and of each score map, from those of the dense network and the subnetworks.

        `gradients[0]` come from `keep_dense`, the others from `finish`; the results are written over
        them, so use them before the next step. Weights and scores are integrated alike (`integrate_in_place`, where
        weight and score of a tensor take turns in `orders`); convolutions filter by filter with `per_filter`. Score maps of
        their own take their subnetwork's gradient as it is.
        """
        names = list(self.weights)
        layouts = [layout_of(weight) for weight in self.weights.values()]
        stacks = [
            [part[name].contiguous(memory_format=layout) for part in gradients]
            for name, layout in zip(names, layouts, strict=True)
        ]
        of_scores: list[Gradients] = [{} for _ in range(1 if self.shared_scores else len(self))]
        if train_scores and not self.shared_scores:
            for name, stack in zip(names, stacks, strict=True):
                for own, part, scores in zip(of_scores, stack[1:], self._scores, strict=True):
                    own[name] = part * self.weights[name] * scores[name].sign()
        integrate_scores = train_scores and self.shared_scores
        results = integrate_in_place(
            stacks,
            orders,
            by_row=self._by_row(per_filter),
            scales=[self._signed_weight(name) if integrate_scores else None for name in names],
            rule=rule,
            exponent=exponent,
            use_dot=use_dot,
        )
        of_weights = {name: result[0] for name, result in zip(names, results, strict=True)}
        if integrate_scores:
            of_scores[0] = {name: result[1] for name, result in zip(names, results, strict=True)}
        return of_weights, of_scores

    def _threshold(self, index: int, name: str) -> Tensor:
        if not self._thresholds:
            self.select()
        return self._thresholds[index][name]

    def _signed_weight(self, name: str) -> RowScale:
        """Rows of sign(s) * W, which turns a gradient with respect to mask * W into one of the score."""
        layout = layout_of(self.weights[name])
        weight, score = (as_rows(t.detach(), layout) for t in (self.weights[name], self._scores[0][name]))
        return lambda cut: score[cut].sign().mul_(weight[cut])

    def _by_row(self, per_filter: bool) -> list[bool]:
        return [per_filter and weight.dim() > 2 for weight in self.weights.values()]


def _sum_of_squares(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return torch.dot(flat, flat)
