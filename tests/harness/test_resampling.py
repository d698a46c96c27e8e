"""Intervals over items and over seeds and items: against theory, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from subnetbench.harness.core.resampling import ClusterMean, Parts, item_variance
from subnetbench.harness.core.statistics import t_half_width


def joint_half_width(values, cluster, confidence=0.95):
    """Half the joint interval of the mean of values (seeds, n), as the leaderboard computes it."""
    seeds = values.mean(axis=1)
    of_items = ClusterMean.of(values, cluster)
    over_items = item_variance([of_items])[0]
    parts = Parts.of(([seeds.var(ddof=1) / len(seeds)], len(seeds) - 1), ([over_items], len(of_items.pull) - 1))
    return parts.half_width(confidence)[0]


def test_the_variance_is_that_of_independent_items():
    values = np.random.default_rng(0).normal(0, 2, (1, 400))
    found = item_variance([ClusterMean.of(values, np.arange(400))], resamples=10_000)[0]
    assert found == pytest.approx(values.var(ddof=1) / 400, rel=0.04)


def test_the_variance_is_that_of_cluster_means():
    """Five equal values in a cluster say no more than one."""
    by_cluster = np.random.default_rng(0).normal(0, 1, 100)
    values = np.repeat(by_cluster, 5)[None]
    found = item_variance([ClusterMean.of(values, np.repeat(np.arange(100), 5))], resamples=10_000)[0]
    assert found == pytest.approx(by_cluster.var(ddof=1) / 100, rel=0.04)


def test_uneven_clusters_agree_with_linearisation():
    """The closed form for a ratio of sums, which the bootstrap approaches (Cameron and Miller 2015, section 2)."""
    generator = np.random.default_rng(1)
    size = generator.integers(1, 9, 150)
    cluster = np.repeat(np.arange(150), size)
    values = (generator.normal(0, 1, 150)[cluster] + generator.normal(0, 1, len(cluster)))[None]
    pull = np.bincount(cluster, values[0] - values.mean())
    expected = 150 / 149 * (pull**2).sum() / len(cluster) ** 2
    found = item_variance([ClusterMean.of(values, cluster)], resamples=10_000)[0]
    assert found == pytest.approx(expected, rel=0.05)


def test_many_means_at_once_are_as_one_by_one():
    generator = np.random.default_rng(2)
    means = [ClusterMean.of(generator.random((2, n)), np.arange(n) // 2) for n in (10, 40, 10, 2, 1)]
    together = item_variance(means)
    assert together == pytest.approx([item_variance([each])[0] for each in means], nan_ok=True)
    assert np.isnan(together[3:]).all(), "one cluster says nothing of others"


def test_items_that_do_not_count():
    values = np.array([[1.0, np.nan, 0.0, 0.5], [0.0, np.nan, 0.0, 0.5]])
    found = ClusterMean.of(values, np.array([7, 8, 9, 9]))
    assert found.mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert found.size.tolist() == [1, 2], "the cluster of the second item has none that counts"
    assert found.pull.sum() == pytest.approx(0)


def test_all_right_does_not_say_that_all_will_be():
    found = item_variance([ClusterMean.of(np.ones((1, 200)), np.arange(200))])[0]
    # The interval reaches the share of which 200 right ones in a row have a chance of 5 %.
    assert 1.96 * math.sqrt(found) == pytest.approx(1 - 0.025 ** (1 / 200), rel=0.3)
    assert item_variance([ClusterMean.of(np.full((1, 200), 0.5), np.arange(200))])[0] == 0, "no shares of right ones"


@given(
    st.lists(st.floats(1e-6, 1), min_size=1, max_size=3),
    st.integers(1, 30),
    st.floats(0.5, 0.999),
)
def test_p_is_where_the_interval_reaches_zero(variances, freedom, confidence):
    parts = Parts.of(*(([variance], freedom + at) for at, variance in enumerate(variances)))
    half = parts.half_width(confidence)
    assert parts.p(half)[0] == pytest.approx(1 - confidence, rel=1e-6)
    assert parts.p(-half)[0] == pytest.approx(1 - confidence, rel=1e-6)


def test_one_source_is_a_t_test():
    parts = Parts.of(([0.04, 0.04, 0.04], [3, 200, 3]))
    expected = 2 * stats.t.sf(np.array([2.5, 5, 0]), [3, 200, 3])
    assert parts.p([0.5, -1.0, 0]) == pytest.approx(expected, rel=1e-6)
    assert parts.half_width(0.9)[0] == pytest.approx(0.2 * stats.t.ppf(0.95, 3))


def test_what_is_not_known_stays_unknown():
    parts = Parts.of(([0.1, np.nan], [2, 2]), ([0.1, 0.1], [0, 5]))
    assert np.isnan(parts.half_width()).all()
    assert np.isnan(parts.p([1, 1])).all()


@given(st.integers(0, 10_000))
def test_the_joint_interval_is_the_root_of_the_sum_of_squares(seed):
    generator = np.random.default_rng(seed)
    values = generator.random((3, 30))
    cluster = np.arange(30) // 3
    of_items = ClusterMean.of(values, cluster)
    over_items = stats.t.ppf(0.975, 9) * math.sqrt(item_variance([of_items])[0])
    over_seeds = float(t_half_width(values.mean(axis=1).std(ddof=1), 3))
    assert joint_half_width(values, cluster) == pytest.approx(math.hypot(over_items, over_seeds))


def test_order_of_clusters_and_items_does_not_matter():
    generator = np.random.default_rng(3)
    values, cluster = generator.random((2, 60)), np.repeat(np.arange(12), 5)
    order = generator.permutation(60)
    first = ClusterMean.of(values, cluster)
    other = ClusterMean.of(values[:, order], cluster[order])
    assert np.allclose(first.pull, other.pull)
    assert np.array_equal(first.size, other.size)
