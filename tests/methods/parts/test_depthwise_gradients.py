"""Depthwise convolutions whose weight gradients are computed strip by strip are the same convolutions."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from subnetbench.methods.parts.networks import depthwise as depthwise_gradients
from subnetbench.methods.parts.networks.depthwise import use_fast_depthwise_gradients


def results(layer, maps):
    """What a layer computes, and the gradients of its maps and parameters for gradients that differ everywhere."""
    maps = maps.clone().requires_grad_()
    out = layer(maps)
    wanted = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out, *torch.autograd.grad(out, [maps, *layer.parameters()], wanted)


def strips(monkeypatch):
    """How often the weight gradient was computed by strips, as a list that grows."""
    counted = []
    usual = depthwise_gradients.weight_gradient

    def spy(*arguments):
        counted.append(1)
        return usual(*arguments)

    monkeypatch.setattr(depthwise_gradients, "weight_gradient", spy)
    return counted


@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    order=st.sampled_from([torch.channels_last, torch.contiguous_format]),
)
def test_gradients_are_those_of_the_usual_convolution(kernel, stride, padding, size, bias, order):
    if any(s + 2 * p < k for s, p, k in zip(size, padding, kernel, strict=True)):
        padding = tuple(k // 2 for k in kernel)
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, kernel, stride, padding, groups=3, bias=bias)
    maps = torch.randn(2, 3, *size).to(memory_format=order)
    expected = results(copy.deepcopy(layer).double(), maps.double())
    use_fast_depthwise_gradients(layer)
    for found, exact in zip(results(layer, maps), expected, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_layers_that_pad_by_themselves(monkeypatch):
    conv2d_same = pytest.importorskip("timm.layers").Conv2dSame
    counted = strips(monkeypatch)
    layer, maps = conv2d_same(4, 4, 5, stride=2, groups=4), torch.randn(2, 4, 7, 7)
    expected = results(layer, maps)
    assert not counted
    use_fast_depthwise_gradients(layer)
    for found, usual in zip(results(layer, maps), expected, strict=True):
        torch.testing.assert_close(found, usual, rtol=1e-5, atol=1e-5)
    assert counted


def test_copies_and_weights_from_elsewhere(monkeypatch):
    counted = strips(monkeypatch)
    layer, maps = nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False), torch.randn(2, 4, 6, 6)
    use_fast_depthwise_gradients(layer)
    copied = copy.deepcopy(layer)
    with torch.no_grad():
        copied.weight.zero_()
    assert not copied(maps).any()
    assert layer(maps).any()
    other = torch.randn_like(layer.weight).requires_grad_()
    functional_call(layer, {"weight": other}, (maps,)).sum().backward()
    assert layer.weight.grad is None
    assert other.grad.any()
    assert len(counted) == 1


@pytest.mark.parametrize(
    "reason", ["no gradients", "frozen weights", "double precision", "automatic precision", "vmap"]
)
def test_everything_else_goes_the_usual_way(reason, monkeypatch):
    counted = strips(monkeypatch)
    layer, maps = nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 6, 6, requires_grad=True)
    use_fast_depthwise_gradients(layer)
    layer(maps).sum().backward()
    assert len(counted) == 1
    if reason == "no gradients":
        with torch.no_grad():
            layer(maps)
    elif reason == "frozen weights":
        layer.requires_grad_(False)(maps).sum().backward()
    elif reason == "double precision":
        layer.double()(maps.double()).sum().backward()
    elif reason == "automatic precision":
        with torch.autocast("cpu", torch.bfloat16):
            layer(maps).sum().backward()
    else:
        parameters = dict(layer.named_parameters())

        def loss(parameters, image):
            return functional_call(layer, parameters, (image[None],)).sum()

        torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, maps.detach())
    assert len(counted) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.jit.trace
def test_exported_layers_know_nothing_of_it():
    layer, maps = nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 6, 6)
    use_fast_depthwise_gradients(layer)
    program = torch.export.export(layer, (maps,))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.conv2d.default"]
    traced = torch.jit.trace(layer, (maps,))
    torch.testing.assert_close(traced(maps), layer(maps))
