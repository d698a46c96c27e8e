"""Intervals and tests for a few seeds.

The repetitions are seeds, so an interval says where the mean over all seeds lies: what another user who runs the
same config will get. It does not say how the score would change on other test images.

The paired t interval is the first choice: it works from two seeds on, and the simulations in the tests show that
it covers at the stated rate. Permutation tests and bootstrap intervals assume less, but with few seeds they cannot
reach a small level at all; `smallest_sign_flip_p` and `bootstrap_reaches` say when, so that a caller can answer
"undecidable" instead of "no difference".
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
TestName = Literal["t", "sign_flip", "wilcoxon"]

EXACT_SIGN_FLIPS = 16
"""Up to this many seeds all sign flips are enumerated, beyond it `SAMPLES` random ones are drawn."""
SAMPLES = 100_000
ROUNDING = 1e-9
"""A standard deviation below this share of the mean is floating point, not spread."""


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values with its confidence interval; NaN bounds where one value cannot give any."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """A difference of two means with its interval and its two-sided p-value.

    `n` is the number of pairs, or for an unpaired comparison the smaller number of values. `smallest_p` is the
    least p-value that `n` could have given, whatever the values: above the level, the test cannot decide.
    """

    difference: Interval
    p: float
    smallest_p: float
    test: str

    @property
    def n(self) -> int:
        return self.difference.n


def t_half_width(std: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> Floats:
    """Half the width of the Student t interval of means of `n` values with standard deviation `std` (ddof = 1).

    Works on arrays; NaN where n < 2.
    """
    from scipy.special import stdtrit

    count = np.asarray(n, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        quantile = stdtrit(np.where(count > 1, count - 1, np.nan), 0.5 + confidence / 2)
        return np.asarray(quantile * np.asarray(std, np.float64) / np.sqrt(count))


def variance_floor(*steps: ArrayLike) -> Floats:
    """The least variance of a difference of values that are multiples of these `steps`: the sum of s**2 / 12.

    That is what rounding to the nearest multiple adds (Sheppard 1898). Step 0 is a quantity that is exact, NaN one
    whose step is not known.
    """
    return np.asarray(sum(np.asarray(step, np.float64) ** 2 for step in steps) / 12)


def paired_t(differences: ArrayLike, confidence: float = 0.95, floor: float = np.nan) -> Comparison:
    """Student's t test that the mean of paired `differences` (n,) is 0; see `paired_t_rows`."""
    sample = _sample(differences)
    return paired_t_rows(sample[None], confidence, floor).comparison(0, "paired t")


@dataclass(frozen=True)
class TTests:
    """Many t tests at once: differences of means with half the width of their intervals, p-values, and the number
    of pairs (or of values in the smaller sample); all (rows,)."""

    difference: Floats
    half_width: Floats
    p: Floats
    n: NDArray[np.int64]

    def comparison(self, row: int, test: str) -> Comparison:
        middle, half = float(self.difference[row]), float(self.half_width[row])
        interval = Interval(middle, middle - half, middle + half, int(self.n[row]))
        p = float(self.p[row])
        return Comparison(interval, p, np.nan if np.isnan(p) else 0.0, test)


def paired_t_rows(differences: Floats, confidence: float = 0.95, floor: ArrayLike = np.nan) -> TTests:
    """Student's t test of each row of `differences` (rows, n), where NaN is a missing pair.

    `floor` (rows,) or one number is the least variance of a difference (`variance_floor`). Differences that are all the
    same and not 0 have p = NaN where it is NaN (not known), and p = 0 where it is 0 (exact quantities). All 0: p = 1;
    fewer than two: NaN.
    """
    return _t_tests(paired_errors(differences, floor), confidence)


def welch_t_rows(
    a: Floats, b: Floats, confidence: float = 0.95, floors: tuple[ArrayLike, ArrayLike] = (np.nan, np.nan)
) -> TTests:
    """Welch's t test of mean(b) - mean(a) for each row of `a` (rows, n) and `b` (rows, m), where NaN is missing.

    `floors` are the least variances of a value of either side, as in `paired_t_rows`. NaN where a sample has fewer
    than two values, or no variance and no known floor.
    """
    return _t_tests(welch_errors(a, b, floors), confidence)


@dataclass(frozen=True)
class Errors:
    """Differences of means with their squared standard errors and degrees of freedom, and the number of pairs (or of
    values in the smaller sample); all (rows,), NaN where there are too few values."""

    difference: Floats
    error2: Floats
    freedom: Floats
    n: NDArray[np.int64]


def paired_errors(differences: Floats, floor: ArrayLike = np.nan) -> Errors:
    """What `paired_t_rows` tests."""
    n, mean, variance = _moments(differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Errors(mean, floored(variance, mean, floor) / n, (n - 1).astype(np.float64), n)


def welch_errors(a: Floats, b: Floats, floors: tuple[ArrayLike, ArrayLike] = (np.nan, np.nan)) -> Errors:
    """What `welch_t_rows` tests."""
    (n, mean_a, variance_a), (m, mean_b, variance_b) = _moments(a), _moments(b)
    variance_a, variance_b = floored(variance_a, mean_a, floors[0]), floored(variance_b, mean_b, floors[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        part_a, part_b = variance_a / n, variance_b / m
        freedom = (part_a + part_b) ** 2 / (part_a**2 / (n - 1) + part_b**2 / (m - 1))
    return Errors(mean_b - mean_a, part_a + part_b, freedom, np.minimum(n, m))


def one_sided_p(errors: Errors, level: float) -> Floats:
    """p (rows,) that the true difference does not have the sign of the measured one; 1 where it is above `level`.

    Exact quantities (`error2` 0) that differ have p = 0; what cannot be tested (NaN) has 1.
    """
    from scipy.special import ndtri, stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(errors.difference) / np.sqrt(errors.error2)
    p = np.where(t == np.inf, 0.0, 1.0)
    # A t quantile is never below the normal one, which spares most of the distribution functions.
    near = np.flatnonzero((t > -ndtri(level)) & np.isfinite(t))
    p[near] = stdtr(errors.freedom[near], -t[near])
    return np.where(p <= level, p, 1.0)


def _t_tests(errors: Errors, confidence: float) -> TTests:
    from scipy.special import stdtr, stdtrit

    mean, error2 = errors.difference, errors.error2
    exact = error2 == 0
    error = np.sqrt(error2)
    freedom = np.where(exact | np.isnan(error2), 1.0, errors.freedom)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(exact, mean == 0, 2 * stdtr(freedom, -np.abs(mean / error)))
    return TTests(mean, stdtrit(freedom, 0.5 + confidence / 2) * error, p, errors.n)


def floored(variance: ArrayLike, mean: ArrayLike, floor: ArrayLike) -> Floats:
    """Variances of values around `mean`, at least `floor`; NaN where there is none beyond rounding and no known floor."""
    spread, least = np.asarray(variance, np.float64), np.asarray(floor, np.float64)
    none = spread <= (ROUNDING * np.asarray(mean)) ** 2
    known = np.maximum(np.where(none, 0.0, spread), np.nan_to_num(least))
    return np.where(np.isnan(spread) | (none & (np.asarray(mean) != 0) & np.isnan(least)), np.nan, known)


def _moments(rows: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Count, mean and variance (ddof = 1) of each row without its NaN; NaN where there are too few values."""
    values = np.ascontiguousarray(rows.T)  # sums along few columns are slow, along many rows quick
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        squares = np.where(known, values - mean, 0.0) ** 2
        return count, mean, squares.sum(axis=0) / np.where(count > 1, count - 1, np.nan)


def sign_flip(differences: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Comparison:
    """Permutation test that paired `differences` (n,) are symmetric around 0, on their mean.

    Exact up to `EXACT_SIGN_FLIPS` pairs; beyond, from random flips, counting the observed one (Phipson and
    Smyth 2010), which keeps the level. The interval is the expanded bootstrap one where n reaches it, else NaN.
    """
    sample = _sample(differences)
    interval = bootstrap_interval(sample, confidence, seed)
    return Comparison(interval, _flip_p(sample, seed), smallest_sign_flip_p(len(sample)), "sign flip")


def wilcoxon(differences: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Comparison:
    """Wilcoxon's signed-rank test of paired `differences` (n,): the sign-flip test on signed ranks.

    Ties share their mean rank and zeros are ranked with the rest (Pratt 1959), so p is exact with both.
    """
    from scipy.stats import rankdata

    sample = _sample(differences)
    interval = bootstrap_interval(sample, confidence, seed)
    p = _flip_p(np.sign(sample) * rankdata(np.abs(sample)), seed)
    return Comparison(interval, p, smallest_sign_flip_p(len(sample)), "Wilcoxon")


def smallest_sign_flip_p(n: int) -> float:
    """The least two-sided p-value of a sign-flip or signed-rank test of `n` pairs: 2 of 2**n flips are as extreme.

    Three pairs cannot give p below 0.25, five not below 0.0625.
    """
    exact = 2.0 ** (1 - n) if n else 1.0
    return exact if n <= EXACT_SIGN_FLIPS else max(exact, 1 / (SAMPLES + 1))


def bootstrap_interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The expanded percentile bootstrap interval of the mean of `values` (n,) (Hesterberg 2015, section 5.3).

    Plain percentiles are too narrow by sqrt((n - 1) / n) and by taking a normal for a t quantile; the level is
    expanded to make up for both. NaN bounds where n is too small to reach that level (see `bootstrap_reaches`).
    """
    sample = _sample(values)
    n = len(sample)
    mean = float(sample.mean()) if n else np.nan
    if not bootstrap_reaches(n, confidence):
        return Interval(mean, np.nan, np.nan, n)
    tail = _expanded_tail(n, confidence)
    low, high = np.quantile(_resamples(n, seed) @ sample, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n)


def bootstrap_reaches(n: int, confidence: float = 0.95) -> bool:
    """Whether `n` values have resamples rare enough for the expanded level, and `SAMPLES` draws can meet them."""
    return n > 1 and _expanded_tail(n, confidence) >= max(float(n) ** -n, 20 / SAMPLES)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values (1979), in the given order; NaN stays NaN and does not count as a comparison."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def power(effect: float, n: int, level: float = 0.05) -> float:
    """The chance that a two-sided paired t test of `n` pairs finds a difference.

    `effect` is the true mean difference in standard deviations of a single difference.
    """
    from scipy.special import nctdtr, stdtrit

    if n < 2:
        return 0.0
    critical, shift = stdtrit(n - 1, 1 - level / 2), abs(effect) * np.sqrt(n)
    below = nctdtr(n - 1, shift, -critical)
    return float(1 - nctdtr(n - 1, shift, critical) + (0.0 if np.isnan(below) else below))


def detectable_effect(n: int, level: float = 0.05, wanted: float = 0.8) -> float:
    """The least effect (see `power`) that is found with probability `wanted`; infinite below two pairs."""
    if n < 2:
        return np.inf
    low, high = 0.0, 1.0
    while power(high, n, level) < wanted:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, n, level) < wanted else (low, middle)
    return high


def _sample(values: ArrayLike) -> Floats:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError("expected a one-dimensional array of finite numbers")
    return sample


def _flip_p(sample: Floats, seed: int) -> float:
    n = len(sample)
    if n == 0:
        return np.nan
    observed = abs(sample.sum()) * (1 - 1e-12)  # sums of the same numbers in another order differ by rounding
    extreme = int(np.count_nonzero(np.abs(_signs(n, seed) @ sample) >= observed))
    return extreme / 2**n if n <= EXACT_SIGN_FLIPS else (extreme + 1) / (SAMPLES + 1)


@lru_cache(maxsize=4)
def _signs(n: int, seed: int) -> Floats:
    if n <= EXACT_SIGN_FLIPS:
        return np.array(list(product((1.0, -1.0), repeat=n)))
    return np.random.default_rng(seed).choice([1.0, -1.0], (SAMPLES, n))


@lru_cache(maxsize=4)
def _resamples(n: int, seed: int) -> Floats:
    """Weights of the n values in the mean of each resample, (SAMPLES, n)."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), SAMPLES)
    return np.asarray(counts, np.float64) * (1.0 / n)


def _expanded_tail(n: int, confidence: float) -> float:
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-np.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.5 + confidence / 2)))
