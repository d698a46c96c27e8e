"""Aggregates over tasks: values computed by hand, laws, and rliable's published formulas written with scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from subnetbench.harness.core import over_tasks

NAN = np.nan
# Two entrants, two tasks, two seeds.
SCORES = np.array([[[0.1, 0.3], [0.6, 0.8]], [[0.2, 0.2], [0.9, 1.1]]])
grids = st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1).map(lambda x: round(x, 3)))
)


def test_by_hand() -> None:
    assert over_tasks.mean_score(SCORES) == pytest.approx([0.45, 0.6])
    assert over_tasks.median_score(SCORES) == pytest.approx([0.45, 0.6])
    assert over_tasks.interquartile_mean(SCORES) == pytest.approx([(0.3 + 0.6) / 2, (0.2 + 0.9) / 2])
    assert over_tasks.optimality_gap(SCORES) == pytest.approx([0.55, 1 - (0.2 + 0.2 + 0.9 + 1.0) / 4])
    assert over_tasks.mean_rank(SCORES).tolist() == [1.75, 1.25]  # equal means on the first task
    assert over_tasks.borda_count(SCORES).tolist() == [0.5, 1.5]
    # Task one: 0.1 loses to both 0.2, 0.3 beats both; task two: all lose.
    assert over_tasks.probability_of_improvement(SCORES[0], SCORES[1]) == pytest.approx((0.5 + 0.0) / 2)
    levels = np.array([0.0, 0.2, 0.7, 2.0])
    assert over_tasks.run_profile(SCORES, levels).tolist() == [[1.0, 0.75, 0.25, 0.0], [1.0, 0.5, 0.5, 0.0]]


def test_ratio_profiles_by_hand() -> None:
    """Three entrants on two tasks: twice, and three times the least; nothing beats a cost of 0 but another 0."""
    costs = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.5]])
    assert over_tasks.ratios(costs).tolist() == [[1.0, 1.0], [2.0, 1.0], [3.0, np.inf]]
    shares = over_tasks.ratio_profile(costs, np.array([1.0, 2.0, 4.0]))
    assert shares.tolist() == [[1.0, 1.0, 1.0], [0.5, 1.0, 1.0], [0.0, 0.0, 0.5]]
    # Areas from 1 to 4 over 3: 2 / 3 and all; 1 / 3 and nothing.
    assert over_tasks.profile_score(costs) == pytest.approx([1.0, (2 / 3 + 1) / 2, (1 / 3 + 0) / 2])
    levels = np.linspace(1, 4, 30_001)
    area = np.trapezoid(over_tasks.ratio_profile(costs, levels), levels) / 3
    assert over_tasks.profile_score(costs) == pytest.approx(area, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(grids)
def test_formulas_are_those_of_rliable(scores: np.ndarray) -> None:
    """As published there, with scores (runs, tasks): mean of means, median of means, trim_mean, Mann and Whitney's U."""
    for entrant, own in enumerate(scores):
        runs = own.T
        assert over_tasks.mean_score(scores)[entrant] == pytest.approx(np.mean(np.mean(runs, axis=0)))
        assert over_tasks.median_score(scores)[entrant] == pytest.approx(np.median(np.mean(runs, axis=0)))
        trimmed = stats.trim_mean(runs, proportiontocut=0.25, axis=None)
        assert over_tasks.interquartile_mean(scores)[entrant] == pytest.approx(trimmed, abs=1e-9)
        assert over_tasks.optimality_gap(scores)[entrant] == pytest.approx(1 - np.mean(np.minimum(runs, 1)))
        assert over_tasks.run_profile(scores, np.array([0.5]))[entrant] == pytest.approx([np.mean(runs > 0.5)])
    x, y = scores[0].T, scores[1].T
    wins = [
        stats.mannwhitneyu(x[:, task], y[:, task], alternative="greater")[0] / (len(x) * len(y))
        for task in range(x.shape[1])
    ]
    assert over_tasks.probability_of_improvement(scores[0], scores[1]) == pytest.approx(np.mean(wins))


@settings(deadline=None, max_examples=60)
@given(grids)
def test_laws(scores: np.ndarray) -> None:
    entrants, tasks, _ = scores.shape
    forth, back = (over_tasks.probability_of_improvement(scores[a], scores[b]) for a, b in ((0, 1), (1, 0)))
    assert forth + back == pytest.approx(1)
    assert over_tasks.mean_rank(scores).sum() == pytest.approx(entrants * (entrants + 1) / 2)
    assert over_tasks.borda_count(scores).sum() == pytest.approx(tasks * entrants * (entrants - 1) / 2)
    moved = over_tasks.interquartile_mean(scores + 1) - over_tasks.interquartile_mean(scores)
    assert moved == pytest.approx(np.ones(entrants))


def test_tasks_weigh_the_same_whatever_their_seeds() -> None:
    """One entrant lost three of four seeds on its best task; it is as good as the other."""
    full = np.array([[0.1] * 4, [0.2] * 4, [0.8] * 4, [0.9] * 4])
    part = np.array([[0.1] * 4, [0.2] * 4, [0.8] * 4, [0.9, NAN, NAN, NAN]])
    for statistic in (over_tasks.mean_score, over_tasks.median_score, over_tasks.optimality_gap):
        assert statistic(full[None]) == pytest.approx(statistic(part[None]))
    assert over_tasks.interquartile_mean(part[None])[0] == pytest.approx(0.5, abs=0.03)
    assert over_tasks.probability_of_improvement(full, part) == pytest.approx(0.5)


def test_resamples_stay_within_a_task_and_its_seeds() -> None:
    scores = np.array([[[1.0, 2.0, NAN], [10.0, 20.0, 30.0]]])
    sample = np.concatenate(list(over_tasks._resamples(scores, np.zeros((1, 2)), 0)))
    assert len(sample) == over_tasks.RESAMPLES
    assert np.isnan(sample[:, 0, 0, 2]).all()
    assert set(np.unique(sample[:, 0, 0, :2])) == {1.0, 2.0}
    assert set(np.unique(sample[:, 0, 1])) == {10.0, 20.0, 30.0}
    assert np.mean(sample[:, 0, 0, 0] == 1.0) == pytest.approx(0.5, abs=0.02)


def test_too_few_seeds_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    for tasks, seeds, known in ((3, 1, False), (2, 2, False), (2, 3, True), (4, 3, True)):
        scores = rng.normal(size=(2, tasks, seeds))
        found = over_tasks.stratified_bootstrap(scores, {"mean": over_tasks.mean_score})["mean"]
        assert found.value == pytest.approx(scores.mean(axis=(1, 2)))
        assert (~np.isnan(found.low)).all() == (~np.isnan(found.high)).all() == known, (tasks, seeds)


def test_clear_wins_on_each_task_that_cancel_are_not_certain() -> None:
    """Each wins everything on one task: all resamples give 0.5, but so few seeds do not show that it is exactly that."""
    rng = np.random.default_rng(0)
    for seeds in (5, 10):
        scores = rng.normal(size=(2, 2, seeds)) + np.array([[100.0, 0.0], [0.0, 100.0]])[:, :, None]
        found = over_tasks.improvements(scores, [(0, 1)])
        exact = stats.binomtest(seeds, seeds).proportion_ci(method="exact").low
        assert found.value.tolist() == [0.5]
        assert [found.low[0], found.high[0]] == pytest.approx([0.5 - (1 - exact) / 2, 0.5 + (1 - exact) / 2])
    one_sided = rng.normal(size=(2, 3, 5)) + np.array([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]])[:, :, None]
    found = over_tasks.improvements(one_sided, [(0, 1), (1, 0)])
    plain = over_tasks.stratified_bootstrap(
        one_sided, {"": lambda sample: over_tasks.probability_of_improvement(sample[:, 0], sample[:, 1])[:, None]}
    )[""]
    assert found.low[0] < plain.low[0] < found.value[0] < found.high[0] == pytest.approx(plain.high[0])
    assert [found.low[0], found.high[0]] == pytest.approx([1 - found.high[1], 1 - found.low[1]], abs=0.01)


def test_clear_wins_have_exact_bounds() -> None:
    """All runs of one beat all of the other: the bounds are those of scipy for that many comparisons."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 3, 4)) + np.array([100.0, 0.0])[:, None, None]
    found = over_tasks.improvements(scores, [(0, 1), (1, 0)])
    exact = stats.binomtest(12, 12).proportion_ci(method="exact")
    assert found.value.tolist() == [1, 0]
    assert [found.low[0], found.high[0]] == pytest.approx([exact.low, 1.0])
    assert [found.low[1], found.high[1]] == pytest.approx([0.0, 1 - exact.low])


@pytest.mark.parametrize("items", [100, 1000])
def test_scores_that_tie_by_rounding_have_intervals_that_cover(items: int) -> None:
    """Runs whose true scores hardly differ, rounded to whole items: most entrants tie, and their mean is not exact."""
    random = np.random.default_rng(items)
    truth = random.uniform(0.4, 0.6, (80, 2))
    scores = np.round((truth[..., None] + random.normal(0, 0.1 / items, (80, 2, 3))) * items) / items
    statistics = {"mean": over_tasks.mean_score}
    steps = np.full((80, 2), 1 / items)
    found = over_tasks.stratified_bootstrap(scores, statistics, steps=steps)["mean"]
    covered = (found.low <= truth.mean(axis=1)) & (truth.mean(axis=1) <= found.high)
    assert covered.mean() > 0.9
    plain = over_tasks.stratified_bootstrap(scores, statistics)["mean"]
    assert ((plain.low <= truth.mean(axis=1)) & (truth.mean(axis=1) <= plain.high)).mean() < 0.5


def test_what_varies_by_more_than_rounding_is_resampled_as_it_is() -> None:
    scores = np.array([[[0.50, 0.52, 0.54]], [[0.61, 0.61, 0.61]]])
    noise = over_tasks.rounding_noise(scores, np.full((2, 1), 0.01))
    assert noise.ravel() == pytest.approx([0.0, 0.01])
    assert over_tasks.rounding_noise(scores, np.full((2, 1), np.nan)).tolist() == [[0.0], [0.0]]
    assert over_tasks.without_spread(scores, np.array([[np.nan], [np.nan]])).tolist() == [False, True]
    assert not over_tasks.without_spread(scores, np.full((2, 1), 0.01)).any()


def test_entrants_that_tie_are_not_certainly_equal() -> None:
    scores = np.full((2, 1, 5), 0.5)
    found = over_tasks.improvements(scores, [(0, 1)], steps=np.full((2, 1), 0.01))
    assert found.value[0] == 0.5
    assert found.low[0] < 0.3 < 0.7 < found.high[0]
