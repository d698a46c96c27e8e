import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.capacity.scores import (
    ScoreMaps,
    keep_mask,
    keep_values,
    masked_weights,
    prunable_parameters,
    score_thresholds,
)
from subnetbench.methods.parts.masks import order_statistics
from subnetbench.methods.parts.masks.order_statistics import magnitude_thresholds, nested_masks, removal_rank
from subnetbench.methods.parts.networks.retrieval import prunnet_resnet

SPARSITIES = (0.0, 0.01, 0.2, 0.5, 0.8, 0.99, 1.0)

DISTRIBUTIONS = {
    "uniform": lambda n, g: g.uniform(-1, 1, n),
    "normal": lambda n, g: g.normal(size=n),
    "heavy tails": lambda n, g: g.standard_cauchy(n),
    "many ties": lambda n, g: g.integers(-3, 4, n),
    "all equal": lambda n, g: np.full(n, -0.25),
    "all zero": lambda n, g: np.zeros(n),
    "sorted": lambda n, g: np.linspace(-1, 2, n),
    "periodic": lambda n, g: np.sin(0.7 * np.arange(n)),
    "two levels far apart": lambda n, g: np.where(np.arange(n) < n // 2, 1e-30, 1e30),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 1000, 40_000, 300_001])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_thresholds_are_the_order_statistics(distribution, count, dtype):
    values = DISTRIBUTIONS[distribution](count, np.random.default_rng(count))
    scores = torch.from_numpy(np.asarray(values)).to(dtype)
    ordered = scores.abs().sort().values
    expected = ordered[[removal_rank(s, count) - 1 for s in SPARSITIES]]
    assert torch.equal(magnitude_thresholds(scores, SPARSITIES), expected)


def test_a_sample_that_misleads_is_made_good(monkeypatch):
    """All sampled positions hold the same value, so no interval holds its rank."""
    count = 40_000
    sample_size = 4096
    positions = (np.arange(sample_size) * 0.6180339887498949 % 1.0 * count).astype(np.int64)
    values = np.linspace(1, 2, count)
    values[positions] = 0
    scores = torch.from_numpy(values)
    expected = scores.sort().values[[removal_rank(s, count) - 1 for s in SPARSITIES]]
    partitions = []
    partition = order_statistics._partition
    monkeypatch.setattr(order_statistics, "_partition", lambda *a: partitions.append(a) or partition(*a))
    assert torch.equal(magnitude_thresholds(scores, SPARSITIES), expected)
    assert partitions


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_masks_are_nested_and_keep_what_the_rank_says(values):
    scores = torch.tensor(values)
    masks = nested_masks(scores, SPARSITIES)
    assert masks[0].all()
    for larger, smaller, sparsity in zip(masks, masks[1:], SPARSITIES[1:], strict=False):
        assert not (smaller & ~larger).any()
        assert smaller.sum() >= len(values) - removal_rank(sparsity, len(values)) + 1
        assert smaller[scores.abs().argmax()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeping_values_is_masking_them(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(500, generator=generator).round(decimals=1).to(dtype)
    values = torch.randn(500, generator=generator).to(dtype)
    for threshold in (scores.abs().max(), scores.abs().median(), scores.abs().min()):
        expected = torch.where(keep_mask(scores, threshold), values, 0)
        assert torch.equal(keep_values(values, scores, threshold, out=torch.empty_like(values)), expected)
        overwritten = values.clone()
        keep_values(overwritten, scores, threshold, out=overwritten)
        assert torch.equal(overwritten, expected)


def test_many_tensors_at_once_are_each_as_alone():
    scores = {name: torch.randn(count) for name, count in (("a", 50_000), ("b", 3), ("c", 33_000))}
    found = score_thresholds(scores, [Capacity(0.7), Capacity(0.1)])
    assert list(found) == list(scores)
    for name, score in scores.items():
        assert torch.equal(found[name], magnitude_thresholds(score, [0.3, 0.9]))


def test_masked_weights_are_those_above_the_threshold():
    linear = torch.nn.Linear(30, 20)
    weights = prunable_parameters(linear)
    scores = ScoreMaps(weights)
    scores.initialise_uniform()
    found = masked_weights(weights, scores.as_dict(), Capacity(0.3))
    for name, weight in weights.items():
        (mask,) = nested_masks(scores.as_dict()[name], [0.7])
        assert torch.equal(found[name], weight * mask)
        assert not found[name].requires_grad


@pytest.mark.parametrize(("capacity", "sparsity"), [(0.8, 0.2), (0.2, 0.8), (1.0, 0.0), (0.05, 0.95)])
def test_capacities_give_clean_sparsities(capacity, sparsity):
    assert Capacity(capacity).sparsity == sparsity


@pytest.mark.parametrize("capacity", [0.0, -0.1, 1.5])
def test_impossible_capacities_are_refused(capacity):
    with pytest.raises(UserError, match="capacity"):
        Capacity(capacity)
    with pytest.raises(UserError, match="capacity"):
        Capacity.from_name(f"capacity_{abs(capacity) if capacity > 0 else 0}")


def test_names_and_capacities_belong_to_each_other():
    assert (Capacity(1.0).name, Capacity(0.2).name, Capacity(0.05).name) == ("dense", "capacity_0.2", "capacity_0.05")
    for name in ("capacity_0.2", "capacity_.5", "capacity_1"):
        assert Capacity.from_name(name) == Capacity(float(name.removeprefix("capacity_")))
    for name in ("dense", "capacity_", "capacity_0.2x", "width_0.5"):
        assert Capacity.from_name(name) is None


@pytest.mark.parametrize(("depth", "tensors", "weights"), [(18, 20, 11_166_912), (50, 53, 23_454_912)])
def test_prunable_weights_of_the_published_backbones(depth, tensors, weights):
    with torch.device("meta"):
        found = prunable_parameters(prunnet_resnet(depth))
    assert (len(found), sum(p.numel() for p in found.values())) == (tensors, weights)


def test_what_is_not_prunable():
    network = torch.nn.Sequential()
    network.add_module("norm", torch.nn.LayerNorm(4))
    with pytest.raises(UserError, match="no parameter"):
        prunable_parameters(network)
    network.add_module("reduction", torch.nn.Linear(4, 4))
    network.add_module("linear", torch.nn.Linear(4, 4))
    assert list(prunable_parameters(network)) == ["linear.weight", "linear.bias"]
    assert list(prunable_parameters(network, biases=False)) == ["linear.weight"]
    assert "reduction.weight" in prunable_parameters(network, dense=())


def test_depthwise_convolutions_can_be_left_whole():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.Conv2d(8, 16, 3, groups=8),  # two filters a channel: depthwise all the same
        torch.nn.Conv2d(16, 16, 3, groups=4),
        torch.nn.Conv2d(16, 1, 1),
        torch.nn.Conv2d(1, 4, 1),  # one input channel, one group: ordinary
    )
    everything = prunable_parameters(network, biases=False)
    assert list(everything) == [f"{i}.weight" for i in range(5)]
    left = prunable_parameters(network, depthwise=False)
    assert {name.split(".")[0] for name in left} == {"0", "2", "3", "4"}


def test_score_maps_mirror_the_weights_and_start_uniform():
    network = prunnet_resnet(18)
    weights = prunable_parameters(network)
    scores = ScoreMaps(weights)
    scores.initialise_uniform(torch.Generator().manual_seed(3))
    assert list(scores.state_dict()) == list(weights)
    for name, score in scores.as_dict().items():
        bound = weights[name][0].numel() ** -0.5
        assert score.shape == weights[name].shape
        assert 0.99 * bound < score.abs().max() <= bound


def test_bias_scores_start_within_the_bound_of_their_weight():
    weights = prunable_parameters(torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3)))
    scores = ScoreMaps(weights)
    scores.initialise_uniform()
    assert scores.as_dict()["0.bias"].abs().max() <= 1 / 6


def test_scores_from_weights_are_standardised():
    linear = torch.nn.Linear(40, 30)
    weights = prunable_parameters(linear)
    scores = ScoreMaps(weights)
    scores.initialise_uniform()
    before = scores.as_dict()["bias"].clone()
    scores.initialise_from_weights(weights)
    score = scores.as_dict()["weight"].detach()
    assert score.mean() == pytest.approx(0, abs=1e-6)
    assert score.std() == pytest.approx((2 / 40) ** 0.5, rel=1e-5)
    assert torch.equal(score.flatten().argsort(), linear.weight.flatten().argsort())
    assert torch.equal(scores.as_dict()["bias"], before)
