"""Ranks and their intervals: the rule one pair at a time with scipy, the level and the coverage by simulation."""

import itertools
import time

import numpy as np
import pytest
from scipy import stats

from subnetbench.harness.leaderboard import ranking
from subnetbench.harness.leaderboard.ranking import Ranks, rank_rows
from subnetbench.tests.harness import discrete_scores


def ranks_of(scores: np.ndarray, steps: float | np.ndarray = np.nan, **options: object) -> Ranks:
    return rank_rows(scores, np.broadcast_to(steps, len(scores)), **({"higher_is_better": True} | options))


def _by_definition(scores: np.ndarray) -> tuple[list[int], list[int]]:
    """Holm's procedure over all ordered pairs, one pair at a time, with scipy's one-sided tests."""
    rows = len(scores)
    tests = []
    for a, b in itertools.permutations(range(rows), 2):
        both = ~np.isnan(scores[a]) & ~np.isnan(scores[b])
        if both.sum() >= 2:
            p = stats.ttest_rel(scores[a][both], scores[b][both], alternative="greater").pvalue
        else:
            known = [row[~np.isnan(row)] for row in (scores[a], scores[b])]
            p = stats.ttest_ind(*known, equal_var=False, alternative="greater").pvalue
        tests.append((p, a, b))
    best, worst = [1] * rows, [rows] * rows
    for done, (p, a, b) in enumerate(sorted(tests)):
        if p > 0.05 / (len(tests) - done):
            break
        best[b] += 1
        worst[a] -= 1
    return best, worst


@pytest.mark.parametrize("seed", range(8))
def test_intervals_follow_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(rng.normal(0, 20, (12, 1)), 1, (12, 6))
    scores[rng.random(scores.shape) < 0.4] = np.nan
    scores = scores[(~np.isnan(scores)).sum(axis=1) >= 2]
    for found in (ranks_of(scores), ranks_of(-scores, higher_is_better=False)):
        assert found.rank.tolist() == (1 + np.argsort(np.argsort(-np.nanmean(scores, axis=1)))).tolist()
        assert (found.best.tolist(), found.worst.tolist()) == _by_definition(scores)
    assert found.worst.min() < len(scores)


def test_ranks_are_the_order_of_the_means() -> None:
    found = ranks_of(np.array([[0.1, 0.3], [0.5, 0.7], [0.7, 0.5], [0.9, 0.9]]))
    assert found.rank.tolist() == [4, 2, 2, 1]
    assert ranks_of(np.zeros((0, 3))).rank.tolist() == []
    assert [ranks_of(np.array([[0.5, 0.6]])).worst.tolist()] == [[1]]


def test_a_lucky_seed_is_not_ranked_and_changes_no_other_rank() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([0.9, 0.7, 0.5])[:, None] + rng.normal(0, 1e-4, (3, 5))
    lucky = np.array([[0.99, np.nan, np.nan, np.nan, np.nan]])
    alone, beside = ranks_of(scores), ranks_of(np.concatenate([lucky, scores]))
    assert alone.rank.tolist() == alone.best.tolist() == alone.worst.tolist() == [1, 2, 3]
    for name in ("rank", "best", "worst"):
        assert getattr(beside, name).tolist() == [0, 1, 2, 3]


def test_equal_differences_tell_nothing_without_the_number_of_items() -> None:
    """Three images more for each of two seeds: no spread, which is no certainty."""
    scores = np.array([[0.904, 0.804], [0.9, 0.8]])
    assert ranks_of(scores).worst.tolist() == [2, 2]
    assert ranks_of(scores, 1 / 750).worst.tolist() == [2, 2]
    assert ranks_of(scores, 1e-6).worst.tolist() == [1, 2]
    assert ranks_of(scores, 0.0).worst.tolist() == [1, 2]  # an exact quantity, such as MACs


def test_many_rows_are_quick() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(rng.normal(0, 3, (1600, 1)), 1, (1600, 5))
    start = time.process_time()
    found = ranks_of(scores)
    assert time.process_time() - start < 3
    assert (found.best <= found.worst).all()
    assert ((found.best >= 1) & (found.worst <= 1600)).all()


def test_very_many_rows_compare_intervals_of_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wider than tests of pairs, but by the same definition: one interval above another is a better row."""
    rng = np.random.default_rng(3)
    scores = rng.normal(np.repeat(np.arange(20.0), 3)[:, None] * 30, 1, (60, 5))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores = scores[(~np.isnan(scores)).sum(axis=1) >= 2]
    monkeypatch.setattr(ranking, "MOST_PAIRED", 0)
    found, rows = ranks_of(scores), len(scores)
    bounds = []
    for row in scores:
        known = row[~np.isnan(row)]
        bounds.append(stats.t.interval(1 - 0.05 / rows, len(known) - 1, known.mean(), stats.sem(known)))
    assert found.best.tolist() == [1 + sum(low > high for low, _ in bounds) for _, high in bounds]
    assert found.worst.tolist() == [rows - sum(high < low for _, high in bounds) for low, _ in bounds]
    assert found.worst.min() < rows


def _covered(found: Ranks, means: np.ndarray) -> bool:
    """Whether the interval of every ranked row has the true rank among the ranked rows."""
    ranked = found.rank > 0
    true = means[ranked].round(12)
    ranks = 1 + (true[None] > true[:, None]).sum(axis=1)
    return bool(((found.best[ranked] <= ranks) & (ranks <= found.worst[ranked])).all())


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("lost", [0.0, 0.25])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_of_ranks_cover_together(
    seeds: int, lost: float, pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows at once, on 200 items, with failed seeds, with true ties and without, at 95 %."""
    if not pairs:
        monkeypatch.setattr(ranking, "MOST_PAIRED", 0)
    rng, boards = np.random.default_rng(seeds), 150
    held = []
    for shifts in (np.zeros(10), np.repeat(np.linspace(-0.5, 0.5, 5), 2), np.linspace(-1, 1, 10)):
        means = discrete_scores.true_means(shifts)
        scores = discrete_scores.draw(rng, shifts, seeds, 200, boards)
        held += [_covered(ranks_of(board, 1 / 200), means) for board in discrete_scores.lose(rng, scores, lost)]
    assert np.mean(held) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / len(held))
    assert len(held) == 3 * boards
