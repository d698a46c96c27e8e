"""Rounding to 8 bits against integer arithmetic, ranges by hand, and what a run of it offers."""

import copy

import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.int8 import quantise, weight_bytes

SHORT = {"epochs": 1, "batch_size": 16, "limit_steps": 2, "network": "conv2", "image_size": 8}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observed(batches, how):
    small = network()
    layers = quantise(small)
    for layer in layers:
        layer.observing = how
    with torch.no_grad():
        for batch in batches:
            small(batch)
    for layer in layers:
        layer.observing = None
    return small, layers


def test_a_layer_computes_what_integers_give():
    images = draw(2, 3, 4, 4)
    _, (conv, _) = observed([images], "minmax")
    low, high = float(images.min()), float(images.max())
    scale = torch.tensor((high - low) / 255)
    zero = (-low / scale).round()
    integers = ((images / scale).round() + zero).clamp(0, 255)
    float_weight = network()[0].weight
    weight_scale = float_weight.abs().amax((1, 2, 3)) / 127
    rounded = (float_weight / weight_scale.view(-1, 1, 1, 1)).round()
    assert conv.weight.dtype == torch.int8
    assert torch.equal(conv.weight.float(), rounded)
    # Sums of products of whole numbers, then one factor a channel.
    sums = nn.functional.conv2d((integers - zero).double(), rounded.double(), padding=1)
    by_hand = sums * (scale * weight_scale).view(-1, 1, 1) + conv.bias.view(-1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(conv(images), by_hand.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["minmax", "mean"])
def test_ranges_are_those_of_the_batches(how):
    batches = [draw(2, 3, 4, 4, seed=seed) for seed in range(3)]
    _, (conv, _) = observed(batches, how)
    ends = torch.stack([torch.stack([each.min(), each.max()]) for each in batches])
    expected = ends.mean(0) if how == "mean" else torch.stack([ends[:, 0].min(), ends[:, 1].max()])
    torch.testing.assert_close(conv.ranges, expected)


def test_rounding_is_close_and_small():
    images, whole = draw(8, 3, 4, 4), network()
    small, _ = observed([images], "minmax")
    with torch.no_grad():
        error = (small(images) - whole(images)).abs().max() / whole(images).abs().max()
    assert 0 < error < 0.05
    weights = 4 * 27 + 64 * 5
    assert weight_bytes(whole) - weight_bytes(copy.deepcopy(small)) == 3 * weights - 4 * (4 + 5 + 2 * 3)


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(UserError, match="no convolution"):
        quantise(nn.Sequential(nn.BatchNorm2d(3)))


def test_a_run_offers_the_rounded_network_beside_the_float_one(run_of):
    inputs = {"teacher": {"method": "dense", "config": SHORT}}
    with run_of("int8", {"calibration_images": 32}, inputs=inputs) as (method, modules, context):
        method.calibrate(modules, context)
        own, whole = method.variants(modules, context)
        assert (own.name, own.origin, whole.name, whole.origin.method) == ("int8", None, "float", "dense")
        assert 0.25 < own.details["weight_bytes"] / whole.details["weight_bytes"] < 0.26
        images = own.preprocessing(context.data.test.images, torch.arange(16).numpy())
        with torch.no_grad():
            torch.testing.assert_close(own.build()(images), whole.build()(images), atol=0.02, rtol=0.1)
