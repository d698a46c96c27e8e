"""Ranks over seeds, shared where a difference is not significant."""

import numpy as np

from subnetbench.harness.statistics import paired_t_rows, welch_t_rows

_CHUNK = 256


def rank_with_ties(scores: np.ndarray, *, higher_is_better: bool, confidence: float = 0.95) -> np.ndarray:
    """Ranks 1, 1, 3, ... of rows of `scores`, (rows, seeds) with NaN where a seed is missing.

    Rows are taken in the order of their means. A row that is not significantly worse than the first row of the
    present rank shares that rank; one that is opens the next, which is its place in the order. The test of a pair
    is a two-sided t test at level 1 - confidence, paired by seed where at least two seeds match, Welch's
    otherwise, not corrected for the number of rows. A row with a single seed can be told apart from nothing.
    """
    ranks = np.zeros(len(scores), np.int64)
    if not len(scores):
        return ranks
    signed = scores if higher_is_better else -scores
    order = np.argsort(-np.nanmean(signed, axis=1), kind="stable")
    leader, rank, done = order[0], 1, 0
    while done < len(order):
        chunk = order[done : done + _CHUNK]
        worse = np.flatnonzero(_significantly_worse(signed[leader], signed[chunk], confidence))
        shared = len(chunk) if not len(worse) else int(worse[0])
        ranks[chunk[:shared]] = rank
        done += shared
        if len(worse):
            leader, rank = chunk[shared], done + 1
    return ranks


def _significantly_worse(leader: np.ndarray, rows: np.ndarray, confidence: float) -> np.ndarray:
    paired = paired_t_rows(leader - rows, confidence)
    worse = paired.difference > paired.half_width
    unpaired = np.flatnonzero(paired.n < 2)
    if len(unpaired):
        welch = welch_t_rows(rows[unpaired], np.broadcast_to(leader, rows[unpaired].shape), confidence)
        worse[unpaired] = welch.difference > welch.half_width
    return worse
