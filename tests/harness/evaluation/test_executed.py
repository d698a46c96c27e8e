"""Counted multiply-accumulates against counts by hand, forward and backward."""

import pytest
import torch
from torch import nn

from subnetbench.harness.core.uncounted import uncounted
from subnetbench.harness.evaluation.executed import counted, note_rows


def count(function) -> int:
    with counted() as counter:
        function()
    return counter.total


def trained(module, *inputs) -> tuple[int, int]:
    """MACs of a forward pass, and of the backward pass to all parameters and to inputs that require gradients."""
    outputs = []
    forward = count(lambda: outputs.append(module(*inputs)))
    output = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    return forward, count(output.sum().backward)


def test_linear_layers():
    images = torch.randn(7, 5)
    forward, backward = trained(nn.Linear(5, 3), images)
    assert forward == 7 * 5 * 3
    assert backward == 7 * 5 * 3  # the images need no gradient
    forward, backward = trained(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), images)
    assert forward == 7 * (5 * 4 + 4 * 3)
    assert backward == 7 * (5 * 4 + 2 * 4 * 3)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions(groups, stride):
    """Grouped ones too, whose backward torch's own formula counts `groups` times."""
    layer = nn.Conv2d(8, 16, 3, stride=stride, padding=1, groups=groups)
    side = 6 // stride
    one = 4 * 16 * side * side * (8 // groups) * 9
    assert trained(layer, torch.randn(4, 8, 6, 6)) == (one, one)
    assert trained(layer, torch.randn(4, 8, 6, 6, requires_grad=True)) == (one, 2 * one)


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_convolutions(groups):
    layer = nn.ConvTranspose2d(8, 12, 3, stride=2, groups=groups)
    one = 4 * 8 * 5 * 5 * (12 // groups) * 9
    assert trained(layer, torch.randn(4, 8, 5, 5, requires_grad=True)) == (one, 2 * one)


def test_a_frozen_layer_has_no_weight_gradient():
    first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
    second.requires_grad_(False)
    forward, backward = trained(nn.Sequential(first, second), torch.randn(2, 3, 5, 5))
    one, two = 2 * 25 * 3 * 4, 2 * 25 * 4 * 4
    assert forward == one + two
    assert backward == one + two  # the first one's weights, and through the second


def test_attention_of_the_cpu():
    query = torch.randn(2, 3, 5, 8, requires_grad=True)
    product = 2 * 3 * 5 * 5 * 8
    forward, backward = trained(lambda q: nn.functional.scaled_dot_product_attention(q, q, q), query)
    assert forward == 2 * product
    assert backward == 5 * product  # the scores are computed again


def test_fused_attention_counts_what_its_parts_count():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.randn(3, 5, 8)
    expected = 3 * 5 * 4 * 8 * 8 + 2 * 3 * 5 * 5 * 8
    with torch.no_grad():
        assert count(lambda: layer(tokens, tokens, tokens)) == expected
    assert trained(layer, tokens.requires_grad_(), tokens, tokens)[0] == expected
    encoder = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True).eval()
    with torch.no_grad():
        assert count(lambda: encoder(tokens)) == expected + 3 * 5 * 2 * 8 * 32


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers(kind, gates, bidirectional):
    layer = kind(6, 5, batch_first=True, bidirectional=bidirectional)
    sequence = torch.randn(3, 7, 6, requires_grad=True)
    forward, backward = trained(layer, sequence)
    assert forward == (1 + bidirectional) * 3 * 7 * gates * 5 * (6 + 5)
    # Weights and inputs; a kernel may leave out the gradient of the first hidden state.
    assert 2 * forward - 2 * (1 + bidirectional) * 3 * gates * 5 * 5 <= backward <= 2 * forward


def test_modes_of_inference_count_the_same():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    images = torch.randn(2, 3, 4, 4)
    expected = 2 * (4 * 4 * 27 + 32)
    assert count(lambda: network(images)) == expected
    with torch.inference_mode():
        assert count(lambda: network(images)) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert count(lambda: network(images)) == expected


def test_optimizers_and_norms_count_nothing():
    network = nn.BatchNorm2d(3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3, 4, 4)).square().sum().backward()
    assert count(optimizer.step) == count(lambda: network(torch.randn(2, 3, 4, 4))) == 0


def test_counters_nest_and_rendering_is_left_out():
    layer, images = nn.Linear(3, 2), torch.randn(1, 3)
    with counted() as outer:
        layer(images)
        with counted() as inner:
            layer(images)
            note_rows("a", 100)
        note_rows("a", 100)  # they were counted
        with uncounted():
            layer(images)
            note_rows("b", 100)
    assert (outer.total, inner.total) == (112, 106)


def test_rows_count_once_for_whoever_has_not_counted_them():
    note_rows("a", 100)  # nobody counts
    seen = {"b"}
    with counted(seen) as counter:
        for name in ("a", "b", "a", "c"):
            note_rows(name, 100)
    assert counter.total == 200
    assert seen == {"a", "b", "c"}


def test_bits_are_the_same_under_a_counter():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 4)
    )
    images = torch.randn(5, 3, 6, 6)
    gradients = []
    for counts in (False, True):
        network.zero_grad()
        if counts:
            assert count(lambda: network(images).logsumexp(1).sum().backward())
        else:
            network(images).logsumexp(1).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
