"""Query workloads: what is asked for, how often, and that it is the same every time."""

import numpy as np
import pytest

from published.workloads import published_order
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.text_image.workloads import every_image_once, small_world


def test_every_image_is_asked_for_once_by_its_first_caption():
    work = every_image_once(50, seed=1)
    assert sorted(work.images) == list(range(50))
    assert not work.captions.any()
    assert (every_image_once(50, seed=1).images == work.images).all()
    assert (every_image_once(50, seed=2).images != work.images).any()
    assert sorted(published_order(50, 1)) == list(range(50))


def test_small_world_stays_in_its_hot_subset():
    counts = np.full(1000, 5)
    work = small_world(counts, 20_000, hot_share=0.05, seed=3)
    asked, times = np.unique(work.images, return_counts=True)
    assert len(asked) == 50
    assert set(work.captions) == set(range(5))
    again = small_world(counts, 20_000, hot_share=0.05, seed=3)
    assert (again.images == work.images).all()
    assert (again.captions == work.captions).all()
    assert set(small_world(counts, 100, hot_share=0.05, seed=4).images) - set(asked)
    assert times.sum() == 20_000


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_frequencies_follow_zipfs_law(exponent):
    queries = 200_000
    work = small_world(np.ones(400, dtype=int), queries, hot_share=0.1, exponent=exponent, seed=0)
    times = np.sort(np.bincount(work.images, minlength=400))[::-1][:40]
    weights = np.arange(1, 41.0) ** -exponent
    expected = queries * weights / weights.sum()
    assert (np.abs(times - expected) < 6 * np.sqrt(expected) + 1e-9).all()


def test_images_without_captions_are_never_asked_for():
    counts = np.array([0, 3, 0, 1])
    work = small_world(counts, 100, hot_share=1.0)
    assert set(work.images) == {1, 3}
    assert (work.captions < counts[work.images]).all()


def test_bad_input_is_named():
    with pytest.raises(UserError, match="caption_counts"):
        small_world([0, 0], 3)
    for hot_share in (0.0, 1.1):
        with pytest.raises(UserError, match="hot_share"):
            small_world([1], 3, hot_share=hot_share)
    with pytest.raises(UserError, match="exponent"):
        small_world([1], 3, exponent=-1.0)
