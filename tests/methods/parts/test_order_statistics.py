from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.methods.parts.masks.order_statistics import (
    keep_largest,
    magnitude_thresholds,
    nested_masks,
    removal_rank,
    smallest,
    sorted_rule_mask,
)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.data())
def test_order_statistics_are_those_of_sorting(values, data):
    ranks = data.draw(st.lists(st.integers(1, len(values)), min_size=1, max_size=5))
    for dtype in (torch.float32, torch.bfloat16):
        tensor = torch.tensor(values).to(dtype)
        before = tensor.clone()
        found = smallest(tensor, ranks)
        assert torch.equal(found, tensor.sort().values[torch.tensor(ranks) - 1])
        assert torch.equal(tensor, before)


@given(st.integers(1, 400), st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 99))
def test_masks_of_one_score_tensor_are_nested_and_keep_what_the_rank_says(entries, sparsities, seed):
    score = torch.randn(entries, generator=torch.Generator().manual_seed(seed))
    sparsities = sorted(sparsities)
    masks = nested_masks(score, sparsities)
    for sparsity, mask in zip(sparsities, masks, strict=True):
        assert int(mask.sum()) == entries - removal_rank(sparsity, entries) + 1
        assert score[mask].abs().min() == magnitude_thresholds(score, [sparsity])[0]
    for wide, narrow in pairwise(masks):
        assert not (narrow & ~wide).any()


def test_ties_at_the_threshold_are_all_kept_but_the_sorted_rule_keeps_its_count():
    score = torch.tensor([1.0, -1.0, 1.0, 1.0, 0.5, 2.0])
    assert nested_masks(score, [0.5])[0].tolist() == [True, True, True, True, False, True]
    assert int(sorted_rule_mask(score, 0.5).sum()) == 3


@pytest.mark.parametrize(("sparsity", "entries", "rank"), [(0.0, 9, 1), (1.0, 9, 9), (0.5, 10, 5), (0.5, 12, 7)])
def test_rank_rounds_halves_to_even(sparsity, entries, rank):
    assert removal_rank(sparsity, entries) == rank


def test_equal_values_are_kept_from_the_front():
    assert keep_largest(torch.tensor([[1.0, 3.0], [1.0, 1.0]]), 3).tolist() == [[True, True], [True, False]]
