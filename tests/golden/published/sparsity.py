"""Sparsity counted from the zeros of a plain network, and sizes of its parts."""

import math
from collections.abc import Iterable

from torch import nn

from subnetbench.methods.parts.masks.statistics import zero_share


def sparsity_of(module: nn.Module, names: Iterable[str]) -> tuple[float, dict[str, float]]:
    """Shares of zeros among the parameters `names` of a plain network: of all together, and by name."""
    parameters = {name: module.get_parameter(name) for name in names}
    shares = {name: zero_share(parameter) for name, parameter in parameters.items()}
    entries = sum(parameter.numel() for parameter in parameters.values())
    return sum(share * parameters[name].numel() for name, share in shares.items()) / entries, shares


def fan_magnitude(fan_in: int, share_kept: float = 1.0) -> float:
    """The magnitude sqrt(2 / (fan_in share_kept)) of the edge-popup code's signed (and unsigned) constants.

    `share_kept` other than 1 is its `scale_fan`: the fan of the pruned layer. That code inserts 1 - (fraction
    kept) there, because it reads its `prune_rate` in both senses; the ASLP code inserts the share kept.
    """
    return math.sqrt(2) / math.sqrt(fan_in * share_kept)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, frozen ones included, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
