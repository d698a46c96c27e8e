"""Intervals of cells over seeds, over test items, and over both."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.special import stdtrit

from subnetbench.harness.core.errors import unknown
from subnetbench.harness.core.resampling import ClusterMean, item_variance
from subnetbench.harness.leaderboard.aggregate import Cells, Rows
from subnetbench.harness.leaderboard.item_scores import NO_ITEMS, CellItems, ItemScores

IntervalKind = Literal["seeds", "items", "joint"]
KINDS: tuple[str, ...] = get_args(IntervalKind)


@dataclass(frozen=True)
class HalfWidths:
    """Half-widths of intervals (cells,), NaN where there is none, and over what each is: one of `KINDS`, or empty."""

    half: np.ndarray
    kind: np.ndarray


class CellIntervals:
    """Intervals of the cells of one board, of the wanted kind as far as outcomes by item are stored.

    `over_seeds` (cells,) are half-widths over seeds. A joint interval is the root of the sum of squares of that and of
    the one over items; where there are no outcomes by item, it is the one over seeds.

    Raises:
        UserError: There is no such kind.
    """

    def __init__(
        self, scores: ItemScores, scored: Rows, cells: Cells, over_seeds: np.ndarray, confidence: float, kind: str
    ) -> None:
        if kind not in KINDS:
            raise unknown("interval", kind, KINDS)
        self.kind, self.scores = kind, scores
        self._scored, self._cells = scored, cells
        self._over_seeds, self._confidence = over_seeds, confidence
        self._known: dict[int, tuple[float, str]] = {}

    def of(self, metric: str, cells: np.ndarray) -> HalfWidths:
        """For each of some cells of a metric (-1: none) half its interval, and over what it is."""
        has = cells >= 0
        over_seeds = np.append(self._over_seeds, np.nan)[np.where(has, cells, -1)]
        kind = np.where(np.isnan(over_seeds), "", "seeds").astype(object)
        if self.kind == "seeds" or not has.any():
            return HalfWidths(over_seeds, kind)
        used = np.unique(cells[has])
        self._compute(metric, used[self._is_score(used)].tolist())
        found = [self._known.get(int(cell), (np.nan, NO_ITEMS)) for cell in cells]
        over_items = np.array([half for half, _ in found])
        with_items = ~np.isnan(over_items)
        if self.kind == "items":
            cost = has & ~self._is_score(np.where(has, cells, 0))
            half = np.where(cost, over_seeds, over_items)
            return HalfWidths(half, np.where(with_items, "items", np.where(cost, kind, "")))
        joint = with_items & ~np.isnan(over_seeds)
        half = np.where(joint, np.sqrt(over_seeds**2 + np.where(joint, over_items, 0) ** 2), over_seeds)
        return HalfWidths(half, np.where(joint, "joint", kind))

    def reasons(self) -> Counter[str]:
        """Why cells have no outcomes by item, with the number of cells; of those whose interval was asked for."""
        return Counter(reason for _, reason in self._known.values() if reason and reason != NO_ITEMS)

    def _is_score(self, cells: np.ndarray) -> np.ndarray:
        """Whether cells are scores on a split, rather than costs of a network or run."""
        return np.asarray(self._scored.split[self._cells.row[cells]] != "")

    def _compute(self, metric: str, cells: list[int]) -> None:
        wanted = [cell for cell in cells if cell not in self._known]
        found = self.scores.of_cells(metric, wanted)
        means = [ClusterMean.of(each.values, each.of.cluster) for each in found if isinstance(each, CellItems)]
        variance = item_variance(means)
        clusters = np.array([len(each.pull) for each in means], np.float64)
        with np.errstate(invalid="ignore"):
            half = stdtrit(np.where(clusters > 1, clusters - 1, np.nan), 0.5 + self._confidence / 2) * np.sqrt(variance)
        halves = iter(half.tolist())
        for cell, each in zip(wanted, found, strict=True):
            self._known[cell] = (np.nan, each) if isinstance(each, str) else (next(halves), "")
