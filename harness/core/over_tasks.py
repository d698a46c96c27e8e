"""Scores of several entrants over several tasks, brought together: means, ranks, probabilities, profiles, intervals.

The definitions are those of rliable (Agarwal et al. 2021, *Deep Reinforcement Learning at the Edge of the Statistical
Precipice*, NeurIPS), of AlgoPerf (Dahl et al. 2023, *Benchmarking Neural Network Training Algorithms*) for ratio profiles
(Dolan and More 2002), and of MTEB (Enevoldsen et al. 2025, *MMTEB*) for the Borda count.

Everywhere `scores` are (..., entrants, tasks, seeds), higher is better, and NaN stands at the end of the seeds where an
entrant has fewer; every entrant has at least one seed on every task. Leading axes are resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subnetbench.harness.core.statistics import ROUNDING

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From scores (resamples, entrants, tasks, seeds) to (resamples, ...)."""

RESAMPLES = 25_000
MOST_RATIO = 4.0
"""The ratio at which profiles end, as in AlgoPerf's rules."""
_FEWEST_BEYOND = 8
"""Resamples that must lie beyond a bound, so that it is no matter of chance."""
_CHUNK = 2**21


def task_means(scores: Floats) -> Floats:
    """Means over seeds, (..., entrants, tasks)."""
    known = ~np.isnan(scores)
    return np.asarray(np.where(known, scores, 0.0).sum(axis=-1) / known.sum(axis=-1))


def mean_score(scores: Floats) -> Floats:
    """The mean over tasks of the means over seeds, (..., entrants)."""
    return np.asarray(task_means(scores).mean(axis=-1))


def median_score(scores: Floats) -> Floats:
    """The median over tasks of the means over seeds, (..., entrants)."""
    return np.asarray(np.median(task_means(scores), axis=-1))


def interquartile_mean(scores: Floats) -> Floats:
    """The mean of the middle half of all runs of all tasks together, (..., entrants): a quarter is cut off either end.

    Of a number of runs that is no multiple of 4, fewer are cut, as by `scipy.stats.trim_mean`. Where tasks have different
    numbers of seeds, runs weigh as much less as there are more, so that all tasks weigh the same.
    """
    count = (~np.isnan(scores)).sum(axis=-1, keepdims=True)
    weight = np.where(np.isnan(scores), 0.0, 1 / (count * scores.shape[-2]))
    runs, weights = (each.reshape(*scores.shape[:-2], -1) for each in (scores, weight))
    order = np.argsort(runs, axis=-1)  # NaN last
    runs, weights = np.take_along_axis(runs, order, axis=-1), np.take_along_axis(weights, order, axis=-1)
    total = count.sum(axis=(-2, -1))[..., None]
    cut = np.floor(0.25 * total) / total
    until = np.cumsum(weights, axis=-1)
    inside = np.clip(np.minimum(until, 1 - cut) - np.maximum(until - weights, cut), 0.0, None)
    return np.asarray((np.nan_to_num(runs) * inside).sum(axis=-1) / inside.sum(axis=-1))


def optimality_gap(scores: Floats, optimum: float = 1.0) -> Floats:
    """How far runs fall short of the optimum, mean over tasks, (..., entrants); what is above it counts as it."""
    return optimum - mean_score(np.minimum(scores, optimum))


def mean_rank(scores: Floats) -> Floats:
    """The mean over tasks of the rank of the mean over seeds, (..., entrants); 1 is best, equal means share."""
    from scipy.stats import rankdata

    ranks = rankdata(-task_means(scores).round(12), method="average", axis=-2)
    return np.asarray(ranks.mean(axis=-1))


def borda_count(scores: Floats) -> Floats:
    """Each task gives every entrant as many points as others are worse, half a point where they are equal; summed."""
    entrants, tasks = scores.shape[-3:-1]
    return np.asarray(tasks * (entrants - mean_rank(scores)))


def probability_of_improvement(a: Floats, b: Floats) -> Floats:
    """The probability that a run of `a` beats a run of `b` on a task drawn at random, (...); ties count half.

    `a` and `b` are (..., tasks, seeds). On each task it is the statistic of Mann and Whitney over the number of pairs.
    """
    left, right = a[..., :, None], b[..., None, :]
    wins = (left > right) + 0.5 * (left == right)
    pairs = (~np.isnan(a)).sum(axis=-1) * (~np.isnan(b)).sum(axis=-1)
    return np.asarray((wins.sum(axis=(-2, -1)) / pairs).mean(axis=-1))


def run_profile(scores: Floats, levels: Floats) -> Floats:
    """The share of runs above each level, mean over tasks, (..., entrants, levels): rliable's score distribution."""
    count = (~np.isnan(scores)).sum(axis=-1)
    shares = [((scores > level).sum(axis=-1) / count).mean(axis=-1) for level in levels]
    return np.stack(shares, axis=-1)


def ratios(costs: Floats) -> Floats:
    """Each entrant's cost over the least one of its task; `costs` are (..., entrants, tasks), at least 0.

    Beside a cost of 0 everything else is infinitely worse.
    """
    least = costs.min(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(costs == least, 1.0, costs / least))


def ratio_profile(costs: Floats, levels: Floats) -> Floats:
    """The share of tasks on which an entrant's cost is at most this many times the least, (..., entrants, levels)."""
    found = ratios(costs)
    return np.stack([(found <= level).mean(axis=-1) for level in levels], axis=-1)


def profile_score(costs: Floats, most: float = MOST_RATIO) -> Floats:
    """The area under the ratio profile from 1 to `most`, over its width, (..., entrants): AlgoPerf's benchmark score."""
    return np.asarray((np.maximum(most - ratios(costs), 0.0) / (most - 1)).mean(axis=-1))


@dataclass(frozen=True)
class Estimates:
    """Values of a statistic with the bounds of their intervals, all of one shape; NaN bounds where seeds are too few."""

    value: Floats
    low: Floats
    high: Floats


def stratified_bootstrap(
    scores: Floats,
    statistics: dict[str, Statistic],
    *,
    steps: Floats | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimates]:
    """Intervals of statistics over seeds, for the tasks that there are.

    Seeds are drawn with replacement within each entrant and task (the stratified bootstrap of rliable). Percentiles of so
    few seeds are too narrow, so their level is expanded (Hesterberg 2015, section 5.3) with the degrees of freedom of all
    tasks together. Bounds are NaN where a task has a single seed, or where resamples cannot reach that level.

    Args:
        scores: (entrants, tasks, seeds).
        statistics: What is computed of each resample.
        steps: Least differences between scores, (entrants, tasks): seeds of an entrant on a task that vary by less than
            rounding to them gives are resampled with the rest of that variance (Sheppard 1898) as uniform noise. NaN, or
            None: not known.
        confidence: Of each interval by itself.
        seed: Of the resamples.
    """
    values = {name: statistic(scores[None])[0] for name, statistic in statistics.items()}
    tail = expanded_tail((~np.isnan(scores)).sum(axis=-1), confidence)
    if tail * RESAMPLES < _FEWEST_BEYOND:
        nothing = {name: np.full_like(value, np.nan) for name, value in values.items()}
        return {name: Estimates(value, nothing[name], nothing[name]) for name, value in values.items()}
    found: dict[str, list[Floats]] = {name: [] for name in statistics}
    for sample in _resamples(scores, rounding_noise(scores, steps), seed):
        for name, statistic in statistics.items():
            found[name].append(statistic(sample))
    bounds = {name: np.quantile(np.concatenate(parts), [tail, 1 - tail], axis=0) for name, parts in found.items()}
    return {name: Estimates(value, *bounds[name]) for name, value in values.items()}


def rounding_noise(scores: Floats, steps: Floats | None) -> Floats:
    """The width of the uniform noise by which variances over seeds reach that of rounding, (entrants, tasks); 0: they do."""
    if steps is None:
        return np.zeros(scores.shape[:-1])
    lacking = np.nan_to_num(steps) ** 2 / 12 - _variances(scores)
    return np.asarray(np.sqrt(12 * np.clip(np.nan_to_num(lacking), 0.0, None)))


def without_spread(scores: Floats, steps: Floats) -> NDArray[np.bool_]:
    """Which entrants (entrants,) have the same score with all seeds of a task whose step is not known."""
    return np.asarray(((_variances(scores) == 0) & np.isnan(steps)).any(axis=-1))


def _variances(scores: Floats) -> Floats:
    """Variances over seeds (ddof = 1), (entrants, tasks); 0 where they are those of rounding in floating point."""
    count, mean = (~np.isnan(scores)).sum(axis=-1), task_means(scores)
    squares = np.nansum((scores - mean[..., None]) ** 2, axis=-1)
    found = squares / np.where(count > 1, count - 1, np.nan)
    return np.asarray(np.where(found <= (ROUNDING * mean) ** 2, 0.0, found))


def improvements(
    scores: Floats,
    pairs: Sequence[tuple[int, int]],
    *,
    steps: Floats | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimates:
    """`probability_of_improvement` of pairs of entrants with its intervals, (pairs,); `scores` as for the bootstrap.

    Where all runs of one beat all of the other on a task, every resample says so. If it is so on all tasks, the bounds are
    exact ones (Clopper and Pearson 1934) for as many independent comparisons as there are pairs of seeds on all tasks. If
    on some, each of these adds how far its own exact bound lies from 0 or 1, in squares (MOVER: Zou and Donner 2008).
    """

    def probabilities(sample: Floats) -> Floats:
        found = [probability_of_improvement(sample[:, a], sample[:, b]) for a, b in pairs]
        return np.stack(found, axis=-1)

    found = stratified_bootstrap(scores, {"": probabilities}, steps=steps, confidence=confidence, seed=seed)[""]
    counts = (~np.isnan(scores)).sum(axis=-1)
    compared = np.array([np.minimum(counts[a], counts[b]).sum() for a, b in pairs])
    least = ((1 - confidence) / 2) ** (1 / compared)
    below, above = (_of_one_sided_tasks(scores, pairs, value, confidence) for value in (1.0, 0.0))
    low = np.maximum(found.value - np.hypot(found.value - found.low, below), 0.0)
    high = np.minimum(found.value + np.hypot(found.high - found.value, above), 1.0)
    known = np.isfinite(found.low)
    low = np.where(known & (found.value == 1), least, low)
    return Estimates(found.value, low, np.where(known & (found.value == 0), 1 - least, high))


def _of_one_sided_tasks(scores: Floats, pairs: Sequence[tuple[int, int]], value: float, confidence: float) -> Floats:
    """The root of the summed squares of what tasks whose own probability is `value`, 0 or 1, may lack, (pairs,)."""
    counts = (~np.isnan(scores)).sum(axis=-1)
    tasks = counts.shape[1]
    lacking = np.zeros((len(pairs), tasks))
    for at, (a, b) in enumerate(pairs):
        own = probability_of_improvement(scores[a][:, None], scores[b][:, None])
        exact = 1 - ((1 - confidence) / 2) ** (1 / np.minimum(counts[a], counts[b]))
        lacking[at] = np.where(own == value, exact / tasks, 0.0)
    return np.asarray(np.sqrt((lacking**2).sum(axis=-1)))


def expanded_tail(counts: NDArray[np.int64], confidence: float) -> float:
    """The share of resamples beyond each bound, for numbers of seeds (entrants, tasks); 0 where one has a single seed.

    It is that of the entrant with the fewest seeds.
    """
    from scipy.special import ndtr, stdtrit

    if counts.min() < 2:
        return 0.0
    fewest = counts[np.argmin(counts.sum(axis=1))]
    widening = np.sqrt(np.mean(fewest / (fewest - 1)))
    return float(ndtr(-widening * stdtrit(float((fewest - 1).sum()), 0.5 + confidence / 2)))


def _resamples(scores: Floats, noise: Floats, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    count = (~np.isnan(scores)).sum(axis=-1, keepdims=True)
    place = np.arange(scores.shape[-1])
    size = max(1, _CHUNK // scores.size)
    for start in range(0, RESAMPLES, size):
        draws = generator.random((min(size, RESAMPLES - start), *scores.shape))
        at = np.where(place < count, (draws * count).astype(np.int64), place)
        sample = np.take_along_axis(np.broadcast_to(scores, at.shape), at, axis=-1)
        if noise.any():
            sample = sample + noise[..., None] * (generator.random(sample.shape) - 0.5)
        yield sample
