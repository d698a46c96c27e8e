"""Made-up scores on finite test sets, for simulations: every value is a whole number of items.

Every test item is right with a probability of its own, drawn from Beta(0.5, 0.2) (its deciles stand for it), as most
items are nearly always right or nearly always wrong. A seed is a draw of all items; rows differ by a shift of the logits.
"""

import numpy as np
from scipy import stats

DECILES = stats.beta(0.5, 0.2).ppf((np.arange(10) + 0.5) / 10).clip(1e-6, 1 - 1e-6)


def probabilities(shifts: np.ndarray) -> np.ndarray:
    """The probabilities (rows, 10) of the ten kinds of items in rows whose logits are shifted by `shifts` (rows,)."""
    logits = np.log(DECILES / (1 - DECILES))
    return 1 / (1 + np.exp(-(logits + shifts[:, None])))


def true_means(shifts: np.ndarray) -> np.ndarray:
    """The mean over all seeds of each row, (rows,)."""
    return probabilities(shifts).mean(axis=1)


def draw(rng: np.random.Generator, shifts: np.ndarray, seeds: int, items: int, boards: int = 1) -> np.ndarray:
    """Scores (boards, rows, seeds) on `items` items, a multiple of 10."""
    chances = probabilities(shifts)
    counts = sum(rng.binomial(items // 10, chances[:, kind, None], (boards, len(shifts), seeds)) for kind in range(10))
    return np.asarray(counts) / items


def lose(rng: np.random.Generator, scores: np.ndarray, share: float) -> np.ndarray:
    """The same with this share of the seeds failed, at random."""
    return np.where(rng.random(scores.shape) < share, np.nan, scores)
