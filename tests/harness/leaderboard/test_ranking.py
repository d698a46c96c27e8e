import numpy as np
import pytest
from scipy import stats

from subnetbench.harness.leaderboard.ranking import rank_with_ties


def _ranks_by_definition(scores: np.ndarray) -> list[int]:
    """The documented rule, one pair at a time, with scipy's tests."""
    means = np.nanmean(scores, axis=1)
    ranks = [0] * len(scores)
    leader, rank = -1, 0
    for place, row in enumerate(np.argsort(-means, kind="stable")):
        if leader < 0 or _worse(scores[row], scores[leader]):
            leader, rank = row, place + 1
        ranks[row] = rank
    return ranks


def _worse(row: np.ndarray, leader: np.ndarray) -> bool:
    both = ~np.isnan(row) & ~np.isnan(leader)
    if both.sum() >= 2:
        p = stats.ttest_rel(leader[both], row[both]).pvalue
        return bool(p < 0.05 and leader[both].mean() > row[both].mean())
    a, b = leader[~np.isnan(leader)], row[~np.isnan(row)]
    return bool(len(a) > 1 and len(b) > 1 and stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05)


@pytest.mark.parametrize("seed", range(12))
def test_ranks_follow_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(rng.normal(0, 3, (40, 1)), 1, (40, 6))
    scores[rng.random(scores.shape) < 0.4] = np.nan
    scores = scores[~np.isnan(scores).all(axis=1)]
    assert rank_with_ties(scores, higher_is_better=True).tolist() == _ranks_by_definition(scores)
    assert rank_with_ties(-scores, higher_is_better=False).tolist() == _ranks_by_definition(scores)


def test_many_rows_are_ranked_across_chunks() -> None:
    base = np.repeat(np.arange(400.0), 3)[:, None]
    scores = base + np.array([0.0, 0.01, 0.02])
    ranks = rank_with_ties(scores, higher_is_better=True)
    assert ranks.tolist() == np.repeat(1197 - 3 * np.arange(400) + 1, 3).tolist()


def test_single_seeds_cannot_be_told_apart() -> None:
    scores = np.array([[0.9], [0.1], [0.5]])
    assert rank_with_ties(scores, higher_is_better=True).tolist() == [1, 1, 1]
    assert rank_with_ties(np.zeros((0, 3)), higher_is_better=True).tolist() == []


def test_a_constant_difference_is_significant() -> None:
    scores = np.array([[0.9, 0.8], [0.7, 0.6]])
    assert rank_with_ties(scores, higher_is_better=True).tolist() == [1, 2]
