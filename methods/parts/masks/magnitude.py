"""Masks that are not learned: by magnitude, over the whole network or by budgets of layers, and at random.

All counts are exact: of n weights round(sparsity n) are removed (halves to the even number). Equal magnitudes
are decided by position.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.masks.budgets import kept_by_erk, kept_by_share
from subnetbench.methods.parts.masks.order_statistics import keep_largest

Scope = Literal["global", "layer", "erk"]
"""Over the whole network; the same share of each layer; by layer as Erdos-Renyi-Kernel budgets say."""


def magnitude_masks(
    weights: Mapping[str, Tensor],
    sparsity: float,
    scope: Scope = "global",
    *,
    within: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Boolean masks that keep the weights of largest magnitude, by name.

    Args:
        weights: By name.
        sparsity: Share of all weights to remove, 0 to 1.
        scope: "global" compares all weights with each other, "layer" removes the same share of each layer, "erk" the
            share of each that `kept_by_erk` leaves.
        within: Masks of an earlier round. What lies outside is removed first, so masks only ever shrink.

    Raises:
        UserError: For a sparsity outside [0, 1].
    """

    def magnitude(name: str) -> Tensor:
        values = weights[name].detach().abs()
        return values if within is None else values.masked_fill(~within[name], -1.0)

    masks = largest_masks({name: magnitude(name) for name in weights}, sparsity, scope)
    return masks if within is None else {name: mask & within[name] for name, mask in masks.items()}


def random_masks(
    weights: Mapping[str, Tensor],
    sparsity: float,
    scope: Scope = "layer",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Boolean masks that keep a uniformly random subset of the weights, by name; see `magnitude_masks`."""
    drawn = {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
    masks = largest_masks(drawn, sparsity, scope)
    return {name: mask.to(weights[name].device) for name, mask in masks.items()}


def largest_masks(values: Mapping[str, Tensor], sparsity: float, scope: Scope = "global") -> dict[str, Tensor]:
    """Boolean masks that keep the largest values (scores of any kind, not their magnitudes), by name.

    Raises:
        UserError: For a sparsity outside [0, 1], or an unknown scope.
    """
    if not 0 <= sparsity <= 1:
        raise UserError("is the fraction removed", field="sparsity", value=sparsity, allowed="0 to 1")
    if scope in ("layer", "erk"):
        budget = kept_by_share if scope == "layer" else kept_by_erk
        counts = budget({name: value.shape for name, value in values.items()}, sparsity)
        return {name: keep_largest(value, counts[name]) for name, value in values.items()}
    if scope != "global":
        raise UserError("unknown choice", field="scope", value=scope, allowed="global, layer, erk")
    together = torch.cat([value.flatten() for value in values.values()])
    keep = keep_largest(together, together.numel() - round(sparsity * together.numel()))
    pieces = torch.split(keep, [value.numel() for value in values.values()])
    return {name: piece.view(value.shape) for (name, value), piece in zip(values.items(), pieces, strict=True)}


def lottery_sparsities(final: float, rate: float = 0.2) -> list[float]:
    """Sparsities after each round of iterative pruning that removes `rate` of what is left, down to `final`.

    1 - (1 - rate)^k for k = 1, 2, ..., the last one replaced by `final` itself; `final` 0 needs no round.
    """
    if not 0 < rate < 1:
        raise UserError("is the share removed in a round", field="rate", value=rate, allowed="between 0 and 1")
    if not 0 <= final < 1:
        raise UserError("is the fraction removed", field="sparsity", value=final, allowed="0 to below 1")
    levels: list[float] = []
    left = 1.0
    while left > (1 - final) * (1 + 1e-9):
        left *= 1 - rate
        levels.append(1 - left)
    return [*levels[:-1], final] if levels else []
