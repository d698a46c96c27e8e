"""Budgets of layers: totals are exact, and shares are those of the paper's formula."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.methods.parts.masks.budgets import erk_densities, kept_by_erk, kept_by_share
from subnetbench.methods.parts.masks.magnitude import magnitude_masks, random_masks

RESNET = {
    "conv0": (16, 3, 3, 3),
    "conv1": (16, 16, 3, 3),
    "conv2": (64, 64, 3, 3),
    "shortcut": (64, 16, 1, 1),
    "fc": (10, 64),
}
layers = st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6)


def reference(shapes, density):
    """The text of the paper: scale all layers alike; where one would exceed 1, make the largest dense and start again."""
    dense = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        if not rest:
            return dict.fromkeys(shapes, 1.0)
        ratio = {name: 1 - (np.prod(shape) - np.sum(shape)) / np.prod(shape) for name, shape in shapes.items()}
        wanted = density * sum(np.prod(s) for s in shapes.values()) - sum(np.prod(shapes[name]) for name in dense)
        scale = wanted / sum(ratio[name] * np.prod(shapes[name]) for name in rest)
        largest = max(rest, key=lambda name: ratio[name])
        if scale * ratio[largest] <= 1 + 1e-12:
            return {name: 1.0 if name in dense else scale * ratio[name] for name in shapes}
        dense.add(largest)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_densities_are_those_of_the_paper(density):
    assert erk_densities(RESNET, density) == pytest.approx(reference(RESNET, density))


@given(layers, st.floats(0, 1))
def test_counts_are_exact_together_and_within_one_by_layer(shapes, sparsity):
    named = {str(i): shape for i, shape in enumerate(shapes)}
    total = sum(map(math.prod, shapes))
    counts, densities = kept_by_erk(named, sparsity), erk_densities(named, 1 - sparsity)
    assert sum(counts.values()) == total - round(sparsity * total)
    for name, shape in named.items():
        assert 0 <= counts[name] <= math.prod(shape)
        assert abs(counts[name] - densities[name] * math.prod(shape)) < 1 + 1e-6
    for name, count in kept_by_share(named, sparsity).items():
        assert count == math.prod(named[name]) - round(sparsity * math.prod(named[name]))


@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_masks_keep_the_largest_within_their_budgets(sparsity):
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in RESNET.items()}
    counts = kept_by_erk(RESNET, sparsity)
    for masks in (magnitude_masks(weights, sparsity, "erk"), random_masks(weights, sparsity, "erk", generator)):
        assert {name: int(mask.sum()) for name, mask in masks.items()} == counts
    for name, mask in magnitude_masks(weights, sparsity, "erk").items():
        removed = weights[name][~mask].abs()
        assert not len(removed) or removed.max() < weights[name][mask].abs().min()
