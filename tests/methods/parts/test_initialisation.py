import math

import pytest
import torch
from torch import nn

from published.sparsity import fan_magnitude
from subnetbench.methods.parts.networks.initialisation import kaiming_normal_, signed_constant_
from subnetbench.methods.parts.networks.small import ConvNet


def network() -> nn.Module:
    return kaiming_normal_(ConvNet((32,), size=8), torch.Generator().manual_seed(0))


def layers_of(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [layer for layer in module.children() if isinstance(layer, nn.Conv2d | nn.Linear)]


def test_weights_are_kaiming_normal_and_biases_uniform():
    for layer in layers_of(network()):
        fan_in, entries = layer.weight[0].numel(), layer.weight.numel()
        assert abs(layer.weight.std() / math.sqrt(2 / fan_in) - 1) < 4 / math.sqrt(2 * entries)
        assert layer.weight.abs().max() > 2.4 * math.sqrt(2 / fan_in)
        assert layer.bias.abs().max() <= 1 / math.sqrt(fan_in)
        assert layer.bias.unique().numel() == layer.bias.numel()


def test_the_draw_belongs_to_the_generator():
    first, again = network(), network()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    constant = kaiming_normal_(ConvNet((32,), size=8), torch.Generator().manual_seed(0), bias=0.25)
    assert all((layer.bias == 0.25).all() for layer in layers_of(constant))
    assert torch.equal(constant.fc3.weight, first.fc3.weight)


@pytest.mark.parametrize("layers", ["all", "conv"])
def test_signed_constants_have_one_magnitude_a_layer_and_the_drawn_signs(layers):
    drawn, constant = network(), signed_constant_(network(), layers)
    for before, after in zip(layers_of(drawn), layers_of(constant), strict=True):
        if layers == "conv" and isinstance(before, nn.Linear):
            assert torch.equal(before.weight, after.weight)
        else:
            assert torch.equal(before.weight.sign(), after.weight.sign())
            torch.testing.assert_close(after.weight.abs(), before.weight.std().expand_as(after.weight))
        assert torch.equal(before.bias, after.bias)


def test_fan_magnitude_is_the_kaiming_deviation_of_the_kept_fan():
    assert fan_magnitude(50) == pytest.approx(0.2)
    assert fan_magnitude(50, 0.25) == pytest.approx(0.4)
