"""Orders and ranks against the definition: by falling score, then by rising index."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from subnetbench.harness.evaluation import ranking

tied_scores = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 40)),
    elements=st.sampled_from([-np.inf, -2.0, -1.5, -1e-40, -0.0, 0.0, 1e-40, 0.25, 1.5, 3e38]),
)
any_scores = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(allow_nan=False, width=32),
)


def order_by_definition(scores: np.ndarray) -> np.ndarray:
    return np.array([sorted(range(len(row)), key=lambda i: (-row[i], i)) for row in scores.astype(float)])


@settings(deadline=None)
@given(st.one_of(tied_scores, any_scores))
def test_order_is_the_definition(scores):
    assert np.array_equal(ranking.descending_order(torch.from_numpy(scores)), order_by_definition(scores))


@settings(deadline=None)
@given(tied_scores, st.data())
def test_best_is_the_head_of_the_order(scores, data):
    k = data.draw(st.integers(1, scores.shape[1]))
    expected = order_by_definition(scores)[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        for share in (1, 10**6):  # by topk wherever possible, and always by sorting
            patch.setattr(ranking, "TOPK_SHARE", share)
            assert np.array_equal(ranking.best(torch.from_numpy(scores), k), expected)


@settings(deadline=None)
@given(tied_scores, st.data())
def test_all_ways_to_rank_agree_with_the_order(scores, data):
    rows, n = scores.shape
    width = data.draw(st.integers(1, 6))
    items = data.draw(arrays(np.int64, (rows, width), elements=st.integers(-1, n - 1)))
    stand_in = np.maximum(items, 0)
    expected = np.take_along_axis(np.argsort(order_by_definition(scores), axis=1), stand_in, axis=1)
    expected[(items < 0) | (np.take_along_axis(scores, stand_in, axis=1) == -np.inf)] = n
    with pytest.MonkeyPatch.context() as patch:
        for on_device in (False, True):
            if on_device:
                patch.setattr(ranking, "_ranks_by_row", ranking._ranks_by_block)
            for most_counted, buckets_share in ((width, 0), (0, 0), (0, n + 1)):
                patch.setattr(ranking, "MOST_COUNTED", most_counted)
                patch.setattr(ranking, "BUCKETS_SHARE", buckets_share)
                assert np.array_equal(ranking.ranks(torch.from_numpy(scores), torch.from_numpy(items)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wanted", [3, 60, 600])
def test_devices_agree(wanted):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 3000, generator=generator).mul(50).round().div(50)
    items = torch.randint(-1, 3000, (7, wanted), generator=generator)
    assert torch.equal(ranking.descending_order(scores.cuda()).cpu(), ranking.descending_order(scores))
    assert torch.equal(ranking.ranks(scores.cuda(), items.cuda()).cpu(), ranking.ranks(scores, items))


@pytest.mark.parametrize("wanted", [3, 60, 600])
@pytest.mark.parametrize("step", [1e-7, 0.02])
def test_long_rows_are_ranked_in_threads(wanted, step):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 3000, generator=generator).div(step).round().mul(step)
    items = torch.randint(0, 3000, (7, wanted), generator=generator)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            assert torch.equal(ranking.descending_order(scores), order)
            assert torch.equal(ranking.ranks(scores, items), order.argsort(1).gather(1, items))
            last = order[:, -wanted:].flip(1)
            assert torch.equal(ranking.ranks(scores, last), torch.arange(2999, 2999 - wanted, -1).expand(7, wanted))
    finally:
        torch.set_num_threads(threads)


def test_scores_of_any_spread_can_be_bucketed(monkeypatch):
    monkeypatch.setattr(ranking, "MOST_COUNTED", 0)
    monkeypatch.setattr(ranking, "BUCKETS_SHARE", 0)
    rows = [
        [3e38, -3e38, 0, 1, 1, 2, -3e38],
        [1e-45, 0, 0, 1e-45, -1e-45, 0, 0],
        [1 + 2**-23, 1, 1, 1 + 2**-23, 1 - 2**-24, 0, -1e38],
        [-torch.inf, 5, -torch.inf, 5, 4, 4, 3],
        [7, 7, 7, 7, 7, 7, 7],
    ]
    scores = torch.tensor(rows, dtype=torch.float32)
    for items in ([0, 1, 2, 3, 4, 5, 6], [1, 3, 3, 3, 3, 3, 3], [5, 4, 1, -1, -1, -1, -1]):
        wanted = torch.tensor(items).expand(5, 7)
        expected = torch.sort(scores, dim=1, descending=True, stable=True).indices.argsort(1).gather(1, wanted % 7)
        unranked = (wanted < 0) | scores.gather(1, wanted % 7).isneginf()
        assert torch.equal(ranking.ranks(scores, wanted), expected.masked_fill(unranked, 7))
