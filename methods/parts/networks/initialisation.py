"""How the weights of frozen random networks are drawn: Kaiming-normal, and signed constants."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Layers = Literal["all", "conv"]


@torch.no_grad()
def kaiming_normal_(
    module: nn.Module, generator: torch.Generator | None = None, *, bias: float | None = None
) -> nn.Module:
    """Draw the weights of all convolutions and linear layers from N(0, 2 / fan_in), in place.

    Biases are uniform within 1 / sqrt(fan_in), or all `bias`. This is the start of the ASLP code for all of its
    methods; its configuration announces Kaiming-uniform, which nothing reads.
    """
    for layer in _layers(module, "all"):
        fan_in = layer.weight[0].numel()
        layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
        if layer.bias is not None:
            bound = 1 / math.sqrt(fan_in)
            layer.bias.uniform_(-bound, bound, generator=generator)
            if bias is not None:
                layer.bias.fill_(bias)
    return module


@torch.no_grad()
def signed_constant_(module: nn.Module, layers: Layers = "all") -> nn.Module:
    """Replace every weight by its sign times one magnitude a layer, in place.

    The magnitude is the standard deviation of the layer's drawn weights (divisor n - 1), which is expected to be
    sqrt(2 / fan_in) after `kaiming_normal_`. "all" is what the papers describe. "conv" leaves linear layers as
    they are: the ASLP code applies the rule before it draws them, so there it never reaches a linear layer.
    """
    for layer in _layers(module, layers):
        layer.weight.copy_(signed_constant(layer.weight))
    return module


def signed_constant(weight: Tensor) -> Tensor:
    """sign(weight) times the sample standard deviation of its entries."""
    return weight.sign() * weight.std()


def _layers(module: nn.Module, layers: Layers) -> list[nn.Conv2d | nn.Linear]:
    kinds = (_ConvNd,) if layers == "conv" else (_ConvNd, nn.Linear)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]  # type: ignore[misc]
