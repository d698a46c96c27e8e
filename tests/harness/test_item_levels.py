"""The tables of docs/statistics.md on test items, simulated again: coverage of intervals, level of tests by item.

Outcomes are right or wrong. Whether a network is right on an item depends on how hard its cluster is (drawn anew for each
collection), on the seed as a whole, and on seed and cluster together; two methods that are equal differ by the last two
and by what each finds hard.
"""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import binomtest

from subnetbench.harness.core.resampling import ClusterMean, Parts, item_variance
from subnetbench.harness.core.statistics import floored, t_half_width, variance_floor
from subnetbench.tests.harness.test_documented_levels import DOCUMENT, margin, percent, table

LEVEL, RIGHT = 0.05, 0.65
COLLECTIONS = {"200": (200, 200), "500": (500, 100), "1000": (1000, 1000)}
"""Items and clusters."""
SEED_SPREADS = {"alike": 0.03, "apart": 0.15}
"""Standard deviation of a seed's effect; the first moves a score by 0.008, the second by 0.04."""
HARD, OWN = 1.0, 0.5


def outcomes(rng, boards, methods, seeds, items, clusters, spread):
    """Right or wrong, (boards, methods, seeds, items), of methods whose chance over all seeds and items is `RIGHT`."""
    scale = np.sqrt(1 + HARD**2 + 2 * OWN**2 + spread**2)
    hard = rng.normal(0, HARD, (boards, 1, 1, clusters))
    own = rng.normal(0, OWN, (boards, methods, 1, clusters))
    of_seed = rng.normal(0, OWN, (boards, methods, seeds, clusters))
    level = rng.normal(0, spread, (boards, methods, seeds, 1))
    chance = ndtr(ndtri(RIGHT) * scale + hard + own + of_seed + level)
    return (rng.random((boards, methods, seeds, items)) < np.repeat(chance, items // clusters, axis=3)).astype(float)


def over_items(values, cluster, paired=False):
    """Variances over items (boards,) of means of values (boards, seeds, items), and degrees of freedom."""
    means = [ClusterMean.of(each, cluster) for each in values]
    if paired:
        means = [replace(each, binary=False) for each in means]
    return item_variance(means), len(means[0].pull) - 1


def over_seeds(scores, items, sides=1):
    """Variances over seeds (boards,) of means of scores (boards, seeds), with the floor, and degrees of freedom."""
    step = variance_floor(*[1 / items] * sides)
    variance = floored(scores.var(axis=1, ddof=1), scores.mean(axis=1), step)
    return variance / scores.shape[1], scores.shape[1] - 1


def coverage(size: str, seeds: int, failed: float, spread: str, boards: int, generator: int = 0):
    """How often the intervals over seeds, over items and over both hold the mean over all seeds and items, and the mean
    width of the last over that of the first."""
    items, clusters = COLLECTIONS[size]
    rng = np.random.default_rng([generator, items, seeds, int(100 * failed), list(SEED_SPREADS).index(spread)])
    cluster = np.arange(items) // (items // clusters)
    finished = np.maximum(rng.binomial(seeds, 1 - failed, boards), 2) if failed else np.full(boards, seeds)
    hits = []
    for count in np.unique(finished):
        share = int((finished == count).sum())
        values = outcomes(rng, share, 1, int(count), items, clusters, SEED_SPREADS[spread])[:, 0]
        scores = values.mean(axis=2)
        sources = over_seeds(scores, items), over_items(values, cluster)
        halves = [Parts.of(sources[0]), Parts.of(sources[1]), Parts.of(*sources)]
        error = np.abs(scores.mean(axis=1) - RIGHT)
        half = [parts.half_width() for parts in halves]
        hits.append(np.stack([*(error <= each for each in half), half[2] / half[0]], axis=1).astype(float))
    found = np.concatenate(hits)
    return (*found[:, :3].mean(axis=0), float(np.median(found[:, 3])))


def satterthwaite_coverage(size: str, seeds: int, spread: str, boards: int, generator: int = 0) -> float:
    """How often a joint interval by Satterthwaite's (1946) approximation would hold that mean: one t interval, with
    degrees of freedom by which the sum of the variances is nearly chi-squared."""
    items, clusters = COLLECTIONS[size]
    rng = np.random.default_rng([generator, items, seeds, list(SEED_SPREADS).index(spread)])
    values = outcomes(rng, boards, 1, seeds, items, clusters, SEED_SPREADS[spread])[:, 0]
    scores = values.mean(axis=2)
    parts = Parts.of(over_seeds(scores, items), over_items(values, np.arange(items) // (items // clusters)))
    total = parts.variance.sum(axis=1)
    freedom = total**2 / (parts.variance**2 / parts.freedom).sum(axis=1)
    return float(np.mean(np.abs(scores.mean(axis=1) - RIGHT) <= stdtrit(freedom, 0.975) * np.sqrt(total)))


def levels(size: str, boards: int, generator: int = 0):
    """How often two equal methods differ significantly: one run each by McNemar's test, and by the bootstrap over
    clusters; and with 2, 3 and 5 seeds over seeds and items together."""
    items, clusters = COLLECTIONS[size]
    cluster = np.arange(items) // (items // clusters)
    rng = np.random.default_rng([generator, items])
    a, b = np.moveaxis(outcomes(rng, boards, 2, 1, items, clusters, 0.0), 1, 0)
    difference = b - a
    gained, lost = (difference == 1).sum(axis=(1, 2)), (difference == -1).sum(axis=(1, 2))
    mcnemar = [binomtest(int(g), int(g + k)).pvalue for g, k in zip(gained, lost, strict=True) if g + k]
    variance, freedom = over_items(difference, cluster, paired=True)
    least = (gained + lost + 2 - (gained - lost) ** 2 / items) / items**2
    by_item = Parts.of((np.maximum(variance, least), freedom)).p(difference.mean(axis=(1, 2)))
    joint = []
    for seeds in (2, 3, 5):
        a, b = np.moveaxis(outcomes(rng, boards, 2, seeds, items, clusters, SEED_SPREADS["apart"]), 1, 0)
        scores = (b - a).mean(axis=2)
        parts = Parts.of(over_seeds(scores, items, 2), over_items(b - a, cluster, paired=True))
        joint.append(float(np.mean(parts.p(scores.mean(axis=1)) <= LEVEL)))
    return (float(np.sum(np.array(mcnemar) <= LEVEL)) / boards, float(np.mean(by_item <= LEVEL)), *joint)


CASES = [
    *itertools.product(COLLECTIONS, (2, 3, 5), (0.0,), SEED_SPREADS),
    *itertools.product(("500",), (3, 5), (0.2,), SEED_SPREADS),
]
BOARDS, BOARDS_HERE = 2000, 300


def test_all_cases_are_stated():
    rows = [(row[0], int(row[2]), percent(row[3]), row[4]) for row in table("| items | clusters | seeds | failed")]
    assert rows == CASES
    assert [row[0] for row in table("| items | clusters | McNemar")] == list(COLLECTIONS)


@pytest.mark.parametrize(("size", "seeds", "failed", "spread"), CASES)
def test_coverage_is_as_stated(size, seeds, failed, spread):
    (row,) = [
        row
        for row in table("| items | clusters | seeds | failed")
        if (row[0], int(row[2]), percent(row[3]), row[4]) == (size, seeds, failed, spread)
    ]
    stated = [percent(text) for text in row[5:8]]
    found = coverage(size, seeds, failed, spread, BOARDS_HERE, generator=1)
    for expected, here in zip(stated, found, strict=False):
        assert abs(here - expected) <= margin(expected, BOARDS_HERE)
    assert found[3] == pytest.approx(float(row[8]), rel=0.2)
    assert stated[2] >= 0.94, "what is stated for the joint interval is what it promises"


def test_the_other_approximation_covers_as_stated():
    stated = re.search(r"Satterthwaite's approximation in its place would cover (\S+ %)", DOCUMENT.read_text())
    found = satterthwaite_coverage("1000", 2, "apart", 1000, generator=1)
    assert abs(found - percent(stated[1])) <= margin(percent(stated[1]), 1000)


@pytest.mark.parametrize("size", COLLECTIONS)
def test_the_level_is_as_stated(size):
    (row,) = [row for row in table("| items | clusters | McNemar") if row[0] == size]
    found = levels(size, BOARDS_HERE, generator=1)
    for name, text, here in zip(("McNemar", "bootstrap", "2", "3", "5"), row[2:], found, strict=True):
        if text == "–":  # McNemar's test takes items for independent, and is not used for clusters
            assert name == "McNemar"
            assert here > 2 * LEVEL
            continue
        assert abs(here - percent(text)) <= margin(percent(text), BOARDS_HERE)
        assert percent(text) <= 0.06


def test_a_seed_and_a_cluster_are_independent_sources():
    """The leaderboard joins what it shows: the root of the sum of squares of the two half-widths."""
    values = outcomes(np.random.default_rng(0), 1, 1, 3, 60, 20, 0.1)[0]
    scores = values.mean(axis=2)
    variance, freedom = over_items(values, np.arange(60) // 3)
    seeds = t_half_width(scores.std(axis=1, ddof=1), 3)
    joint = Parts.of(over_seeds(scores, 60), (variance, freedom)).half_width()
    assert joint == pytest.approx(np.hypot(seeds, Parts.of((variance, freedom)).half_width()))


if __name__ == "__main__":
    print("| items | clusters | seeds | failed | seeds vary | over seeds | over items | joint | width |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        *shares, width = coverage(*case, BOARDS)
        names = f"{case[0]} | {COLLECTIONS[case[0]][1]} | {case[1]} | {100 * case[2]:.0f} % | {case[3]}"
        print(f"| {names} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} | {width:.1f} |", flush=True)
    print("\n| items | clusters | McNemar | bootstrap | joint, 2 seeds | joint, 3 seeds | joint, 5 seeds |")
    print("|---|---|---|---|---|---|---|")
    for size, (_, clusters) in COLLECTIONS.items():
        found = [f"{100 * share:.1f} %" for share in levels(size, BOARDS)]
        print(f"| {size} | {clusters} | {' | '.join(found)} |", flush=True)
    print(
        f"\nSatterthwaite, 1000 items, 2 seeds apart: {100 * satterthwaite_coverage('1000', 2, 'apart', BOARDS):.1f} %"
    )
