"""Intervals and tests over test items that come in clusters, and over seeds and items together.

Test items are a sample too: other images would have given another score. Items of one cluster (drawings of one concept,
captions of one image) are not independent, so whole clusters are drawn, with replacement (the cluster bootstrap: Davison
and Hinkley 1997, section 3.8; Field and Welsh 2007). The mean of a resample is a ratio: the sum over the drawn clusters
over their number of items. As with few seeds (`statistics`), the spread of resamples is widened by sqrt(C / (C - 1)) and
taken times a Student quantile with C - 1 degrees of freedom for C clusters (Hesterberg 2015, section 5.3).

Seeds and items are crossed: every network answers all items. The error of a mean over both is that of drawing seeds plus
that of drawing items, and their intervals are joined by the root of the sum of squares of their half-widths (MOVER, the
method of variance estimates recovery: Graybill and Wang 1980; Zou and Donner 2008). What is neither seed nor item alone
counts in both, so a joint interval is a little too wide, never too narrow: simulations are in the tests.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 1000
_CHUNK_BYTES = 2**25


@dataclass(frozen=True)
class ClusterMean:
    """The mean of items, as its clusters make it up; arrays are (clusters,) and leave out clusters without items.

    `pull` is the sum over a cluster's items of value minus `mean`, `size` the number of its items. `binary`: all values
    are 0 or 1, over `outcomes` of them (items times seeds).
    """

    mean: float
    pull: Floats
    size: Floats
    binary: bool
    outcomes: int

    @classmethod
    def of(cls, values: Floats, cluster: NDArray[np.int64]) -> "ClusterMean":
        """From values (seeds, n), NaN where an item does not count, and the number of each item's cluster (n,).

        Several seeds are averaged item by item.
        """
        known = ~np.isnan(values)
        counts = known.sum(axis=0)
        counted = counts > 0
        filled = np.where(known, values, 0.0)
        by_item = filled.sum(axis=0)[counted] / counts[counted]
        mean = float(by_item.mean()) if len(by_item) else np.nan
        code = np.unique(cluster[counted], return_inverse=True)[1]
        return cls(
            mean,
            np.bincount(code, by_item - mean).astype(np.float64) if len(code) else np.zeros(0),
            np.bincount(code).astype(np.float64) if len(code) else np.zeros(0),
            bool(((filled == 0) | (filled == 1)).all()),
            int(counts.sum()),
        )


def item_variance(means: list[ClusterMean], resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The variance over clusters of items of each of some means (k,); NaN below two clusters.

    Right-or-wrong outcomes have at least the variance that as many independent ones have after two more right and two
    more wrong ones (Agresti and Coull 1998): that all were right does not say that all will be.
    """
    found = np.full(len(means), np.nan)
    lengths = np.array([len(each.pull) for each in means], np.int64)
    for clusters in np.unique(lengths[lengths > 1]):
        rows = np.flatnonzero(lengths == clusters)
        pull = np.stack([means[row].pull for row in rows], axis=1)
        size = np.stack([means[row].size for row in rows], axis=1)
        found[rows] = _bootstrap_variance(pull, size, resamples, seed) * clusters / (clusters - 1)
    for row, each in enumerate(means):
        if each.binary and lengths[row] > 1:
            share = (each.mean * each.outcomes + 2) / (each.outcomes + 4)
            found[row] = max(found[row], share * (1 - share) / (each.outcomes + 4))
    return found


def _bootstrap_variance(pull: Floats, size: Floats, resamples: int, seed: int) -> Floats:
    """Variance of the ratio of sums over resampled clusters; `pull` and `size` are (clusters, k)."""
    same_size = bool((size == size[:, :1]).all())
    parts = []
    draws = _draws(len(pull), resamples, seed)
    step = max(1, _CHUNK_BYTES // (8 * len(pull)))
    for start in range(0, resamples, step):
        drawn = draws[start : start + step].astype(np.float64)
        total = drawn @ (size[:, :1] if same_size else size)
        parts.append((drawn @ pull) / total)
    return np.asarray(np.concatenate(parts).var(axis=0))


@lru_cache(maxsize=4)
def _draws(clusters: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """How often each cluster is in each resample (resamples, clusters); the mean is 1, so that 255 is never reached."""
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, clusters), np.uint8)
    for row in counts:
        row[:] = np.bincount(generator.integers(clusters, size=clusters), minlength=clusters)
    return counts


@dataclass(frozen=True)
class Parts:
    """Sources of error of some estimates, each with a variance and degrees of freedom; all (k, sources)."""

    variance: Floats
    freedom: Floats

    @classmethod
    def of(cls, *sources: tuple[ArrayLike, ArrayLike]) -> "Parts":
        """From pairs of variances (k,) and degrees of freedom (k,)."""
        variance = np.stack([np.asarray(v, np.float64) for v, _ in sources], axis=1)
        freedom = np.stack([np.broadcast_to(np.asarray(f, np.float64), variance.shape[:1]) for _, f in sources], axis=1)
        return cls(variance, freedom)

    def half_width(self, confidence: float = 0.95) -> Floats:
        """Half the width of the joint interval of each estimate (k,); NaN where a source is not known."""
        return self._half(np.full(len(self.variance), 0.5 + confidence / 2))

    def p(self, estimate: ArrayLike) -> Floats:
        """Two-sided p-values that the estimates (k,) are 0: 1 - the confidence at which the interval just reaches 0."""
        size = np.abs(np.asarray(estimate, np.float64))
        low, high = np.zeros(len(size)), np.ones(len(size))
        known = ~np.isnan(self._half(np.full(len(size), 0.975))) & ~np.isnan(size)
        for _ in range(60):  # halves the distance each time, in the logarithm below 0.5
            middle = np.where(low > 0, np.sqrt(low * high), high / 16)
            outside = self._half(1 - middle / 2) < size
            low, high = np.where(outside, low, middle), np.where(outside, middle, high)
            if (high < 1e-15).all():
                break
        return np.where(known, np.where(size == 0, 1.0, high), np.nan)

    def _half(self, quantile: Floats) -> Floats:
        from scipy.special import stdtrit

        with np.errstate(invalid="ignore"):
            factor = stdtrit(np.where(self.freedom > 0, self.freedom, np.nan), quantile[:, None])
        return np.asarray(np.sqrt((factor**2 * self.variance).sum(axis=1)))
