"""Ranks by mean over seeds, each with an interval of the ranks that the seeds allow."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from subnetbench.harness.core import statistics

FEWEST_SEEDS = 2
"""A row with fewer is not ranked: nothing says how far its mean would move with another seed."""
MOST_PAIRED = 2000
"""Up to this many rows all pairs are tested; beyond it intervals of means are compared, which takes no pairs."""
_CHUNK = 128


@dataclass(frozen=True)
class Ranks:
    """Ranks of rows, all (rows,); 0 where a row is not ranked.

    `rank` is the position in the order of the means (equal means share it). The true rank of every row lies in
    `best`..`worst`, for all rows at once, with the stated confidence.
    """

    rank: np.ndarray
    best: np.ndarray
    worst: np.ndarray


def rank_rows(scores: np.ndarray, steps: np.ndarray, *, higher_is_better: bool, confidence: float = 0.95) -> Ranks:
    """Rank the rows of `scores`, (rows, seeds) with NaN where a seed is missing; `steps` (rows,) as in `Board.steps`.

    A row's best rank is one more than the number of rows that are significantly better, its worst rank leaves out those
    that are significantly worse. Tested are all ordered pairs, one-sided, by t tests (paired by seed where two seeds
    match, Welch's otherwise) with Holm's correction over all of them, so that no wrong statement is made with
    probability `confidence`, and all intervals hold together: Mogstad, Romano, Shaikh and Wilhelm (2024), Inference for
    Ranks, Review of Economic Studies 91(1), section 3. A true rank is one more than the number of rows whose true mean
    is better.
    """
    signed = scores if higher_is_better else -scores
    ranked = np.flatnonzero((~np.isnan(signed)).sum(axis=1) >= FEWEST_SEEDS)
    found = Ranks(*(np.zeros(len(scores), np.int64) for _ in range(3)))
    if not len(ranked):
        return found
    chosen, floors = signed[ranked], statistics.variance_floor(steps[ranked])
    found.rank[ranked] = rankdata(-_rounded(np.nanmean(chosen, axis=1)), method="min")
    bounds = _by_pairs if len(ranked) <= MOST_PAIRED else _by_means
    found.best[ranked], found.worst[ranked] = bounds(chosen, floors, 1 - confidence)
    return found


def _rounded(means: np.ndarray) -> np.ndarray:
    """Means of the same numbers in another order differ by rounding."""
    largest = float(np.abs(means).max())
    return np.round(means / largest, 12) if largest > 0 else means


def _by_pairs(scores: np.ndarray, floors: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The best and the worst rank of each row, by Holm's procedure over all ordered pairs."""
    rows = len(scores)
    hypotheses = rows * (rows - 1)
    # Of the two hypotheses of a pair only one can have a small p, so half of them are left over, whatever is rejected.
    parts = list(_significant(scores, floors, 2 * level / max(hypotheses, 1)))
    winner, loser, p = (np.concatenate([part[i] for part in parts]) for i in range(3))
    order = np.argsort(p, kind="stable")
    passes = p[order] <= level / (hypotheses - np.arange(len(p)))
    kept = order[: int(np.argmin(passes))] if not passes.all() else order
    best = 1 + np.bincount(loser[kept], minlength=rows)
    return best, rows - np.bincount(winner[kept], minlength=rows)


def _significant(
    scores: np.ndarray, floors: np.ndarray, level: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Winner, loser and one-sided p of the pairs whose p is at most `level`."""
    by_seed = np.ascontiguousarray(scores.T)
    for start in range(0, len(scores), _CHUNK):
        some = np.arange(start, min(start + _CHUNK, len(scores)))
        first, second = (index + start for index in np.triu_indices(len(some), 1, len(scores) - start))
        differences = np.take(by_seed, first, axis=1) - np.take(by_seed, second, axis=1)
        errors = statistics.paired_errors(differences.T, floors[first] + floors[second])
        p, difference = statistics.one_sided_p(errors, level), errors.difference
        apart = np.flatnonzero(errors.n < FEWEST_SEEDS)
        if len(apart):
            a, b = second[apart], first[apart]
            welch = statistics.welch_errors(scores[a], scores[b], (floors[a], floors[b]))
            p[apart], difference[apart] = statistics.one_sided_p(welch, level), welch.difference
        near = np.flatnonzero(p <= level)
        up = difference[near] > 0
        yield np.where(up, first[near], second[near]), np.where(up, second[near], first[near]), p[near]


def _by_means(scores: np.ndarray, floors: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The same from intervals of all means that hold together (Bonferroni): wider, and quick for any number of rows."""
    rows = len(scores)
    count = (~np.isnan(scores)).sum(axis=1)
    mean = np.nanmean(scores, axis=1)
    variance = statistics.floored(np.nanvar(scores, axis=1, ddof=1), mean, floors)
    half = np.nan_to_num(statistics.t_half_width(np.sqrt(variance), count, 1 - level / rows), nan=np.inf)
    low, high = mean - half, mean + half
    best = 1 + rows - np.searchsorted(np.sort(low), high, side="right")
    return best, rows - np.searchsorted(np.sort(high), low, side="left")
