"""Tests of pairs of rows by test item: over items for the runs that there are, and over seeds and items together.

Both rows are scored on the same items, so that differences are taken item by item. Right-or-wrong outcomes of one run
on each side, of items that are independent of each other, are tested by McNemar's exact test (the binomial test of items
that only one of the two has right); everything else by the bootstrap over clusters of items (`core.resampling`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit
from scipy.stats import binomtest

from subnetbench.harness.core.resampling import ClusterMean, Parts, item_variance
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.compare_settings import Settings
from subnetbench.harness.leaderboard.item_scores import OTHER_ITEMS, CellItems

Cells = tuple[Board, np.ndarray]
_POWER = 0.8
TOO_FEW = "too few seeds, or values that do not vary over them"


@dataclass(frozen=True)
class _Pair:
    """Differences of two cells by item: (seeds, n), seed by seed where `paired`, else one row of differences of means."""

    values: np.ndarray
    cluster: np.ndarray
    paired: bool
    binary: bool

    def mean(self) -> ClusterMean:
        return replace(ClusterMean.of(self.values, self.cluster), binary=False)

    @property
    def gained(self) -> int:
        return int((self.values == 1).sum())

    @property
    def lost(self) -> int:
        return int((self.values == -1).sum())

    @property
    def by_mcnemar(self) -> bool:
        return self.binary and len(self.values) == 1 and len(np.unique(self.cluster)) == len(self.cluster)

    def least_variance(self) -> float:
        """That of as many independent pairs after one more gain and one more loss (Agresti and Min 2005); a few items
        that changed the same way are no proof. 0 where outcomes are not right or wrong, or not paired."""
        if not self.binary:
            return 0.0
        count = int((~np.isnan(self.values)).sum())
        net = self.gained - self.lost
        return (self.gained + self.lost + 2 - net**2 / count) / count**2


def retest_by_item(
    lines: pd.DataFrame, a: Cells, b: Cells, metric: str, margin: np.ndarray, settings: Settings
) -> None:
    """Fill in the lines of one metric again, by item, where the settings ask for it and outcomes are stored.

    `lines` hold the tests over seeds; `a` and `b` are the boards with the cells (lines,). Adds the columns `pair` (over
    what each line is tested) and `no_items` (why it is not tested by item).
    """
    lines["pair"], lines["no_items"] = "seeds", ""
    if settings.pairing == "seeds" or lines.empty:
        return
    found = [board.items.of_cells(metric, cells.tolist()) for board, cells in (a, b)]
    pairs = [_pair(of_a, of_b, int(n)) for of_a, of_b, n in zip(*found, lines["pairs"], strict=True)]
    lines["no_items"] = [each if isinstance(each, str) else "" for each in pairs]
    at = np.array([row for row, each in enumerate(pairs) if not isinstance(each, str)], np.int64)
    known = [each for each in pairs if not isinstance(each, str)]
    if settings.pairing == "items":
        lacking = np.setdiff1d(np.arange(len(lines)), at)
        lines.loc[lacking, ["low", "high", "p", "shifted_p", "smallest_p", "detectable"]] = np.nan
        lines.loc[lacking, "test"] = ""
    if not len(at):
        return
    means = [each.mean() for each in known]
    variance = np.maximum(item_variance(means), [each.least_variance() for each in known])
    freedom = np.array([len(each.pull) - 1 for each in means], np.float64)
    if settings.pairing == "items":
        lines.loc[at, "difference"] = [each.mean for each in means]
        _fill(lines, at, Parts.of((variance, freedom)), margin, settings, "items")
        for row, each in zip(at, known, strict=True):
            if each.by_mcnemar:
                lines.loc[row, ["p", "test"]] = _mcnemar(each), "McNemar"
        return
    seeds = _over_seeds(lines.iloc[at], a, b, at, settings.confidence)
    _fill(lines, at, Parts.of(*seeds, (variance, freedom)), margin, settings, "joint")


def item_error(of_cells: Sequence[CellItems | str], pairs: int) -> tuple[float, float] | str:
    """The standard error over items, and its degrees of freedom, of the mean of one cell, or of the difference of two (the
    second minus the first, seed by seed where at least two `pairs` match); or why there is none."""
    if len(of_cells) == 1:
        (one,) = of_cells
        if isinstance(one, str):
            return one
        mean, least = ClusterMean.of(one.values, one.of.cluster), 0.0
    else:
        pair = _pair(of_cells[0], of_cells[1], pairs)
        if isinstance(pair, str):
            return pair
        mean, least = pair.mean(), pair.least_variance()
    variance = max(float(item_variance([mean])[0]), least)
    return (float(np.sqrt(variance)), len(mean.pull) - 1.0) if len(mean.pull) > 1 else "all items are of one cluster"


def _pair(a: CellItems | str, b: CellItems | str, pairs: int) -> _Pair | str:
    if isinstance(a, str) or isinstance(b, str):
        return f"a: {a}" if isinstance(a, str) else f"b: {b}"
    if not a.of.same_as(b.of):
        return OTHER_ITEMS.replace("its seeds", "a and b")
    binary = all(np.isin(each.values[~np.isnan(each.values)], (0, 1)).all() for each in (a, b))
    _, of_a, of_b = np.intersect1d(a.seeds, b.seeds, return_indices=True)
    if pairs >= 2:
        return _Pair(b.values[of_b] - a.values[of_a], a.of.cluster, True, binary)
    one = len(a.values) == len(b.values) == 1
    return _Pair((b.values.mean(axis=0) - a.values.mean(axis=0))[None], a.of.cluster, False, binary and one)


def _over_seeds(
    lines: pd.DataFrame, a: Cells, b: Cells, at: np.ndarray, confidence: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Variances of the differences over seeds, with degrees of freedom: of the pairs, or of either side without pairs."""
    paired = lines["pairs"].to_numpy() >= 2
    sources = []
    for number, (board, cells) in enumerate((a, b)):
        own = board.half_widths[cells[at]]
        # A pair has one source: the second then adds nothing.
        half = np.where(paired, (lines["high"] - lines["low"]) / 2 if number == 0 else 0.0, own)
        count = np.where(paired, lines["pairs"], board.cells.count[cells[at]]).astype(np.float64)
        at_confidence = np.where(paired, confidence, board.confidence)
        with np.errstate(invalid="ignore"):
            factor = stdtrit(np.where(count > 1, count - 1, np.nan), 0.5 + at_confidence / 2)
        sources.append(((half / factor) ** 2, count - 1))
    return sources


def _fill(lines: pd.DataFrame, at: np.ndarray, parts: Parts, margin: np.ndarray, settings: Settings, pair: str) -> None:
    difference = lines["difference"].to_numpy()[at]
    half = parts.half_width(settings.confidence)
    tested = ~np.isnan(half)
    lines.loc[at[~tested], "no_items"] = TOO_FEW if pair == "joint" else "all items are of one cluster"
    at, difference, half = at[tested], difference[tested], half[tested]
    parts = Parts(parts.variance[tested], parts.freedom[tested])
    lines.loc[at, "low"], lines.loc[at, "high"] = difference - half, difference + half
    lines.loc[at, "p"] = parts.p(difference)
    lines.loc[at, "shifted_p"] = parts.p(difference + margin[at])
    lines.loc[at, "smallest_p"] = 0.0
    lines.loc[at, "detectable"] = half + ndtri(_POWER) * np.sqrt(parts.variance.sum(axis=1))
    lines.loc[at, "test"] = "cluster bootstrap of items" if pair == "items" else "t over seeds and items"
    lines.loc[at, "pair"] = pair


def _mcnemar(pair: _Pair) -> float:
    changed = pair.gained + pair.lost
    return float(binomtest(pair.gained, changed).pvalue) if changed else 1.0


def reasons(no_items: Sequence[str]) -> str:
    """Why lines were not tested by item, the most frequent reason first."""
    return "; ".join(reason for reason, _ in Counter(filter(None, no_items)).most_common(3))
