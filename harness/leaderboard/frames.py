"""Rows of a leaderboard chosen and ordered by a user's words, and their figures as arrays or as a tidy frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from subnetbench.harness.errors import unknown
from subnetbench.harness.leaderboard import where as language
from subnetbench.harness.leaderboard.ranking import rank_with_ties

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard


@dataclass(frozen=True)
class View:
    """What is shown of a leaderboard, and in which order; the fields are told in `Leaderboard.frame`."""

    metrics: Sequence[str] | None = None
    where: str | None = None
    splits: Sequence[str] | None = ("test",)
    sort: Sequence[str] = ()
    within: Sequence[str] = ()
    spread: bool = False
    """Tables for people show standard deviations beside means and intervals; frames always have them."""
    limit: int | None = 500
    """Most rows of each table for people; frames and files of data are never cut."""


@dataclass(frozen=True)
class Figures:
    """One metric of some rows; all arrays are (rows,). `cell` is -1 where a row has no such figure."""

    metric: str
    cell: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    half_width: np.ndarray
    count: np.ndarray
    rank: np.ndarray
    trivial: np.ndarray

    @property
    def low(self) -> np.ndarray:
        return self.mean - self.half_width

    @property
    def high(self) -> np.ndarray:
        return self.mean + self.half_width

    def at(self, rows: np.ndarray) -> "Figures":
        """The same of some rows: places, or a mask."""
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def clears_trivial(self) -> np.ndarray:
        """Whether the whole interval is better than the trivial baseline; False where either is missing."""
        from subnetbench.harness.leaderboard.board import higher_is_better

        return (self.high < self.trivial) if higher_is_better(self.metric) is False else (self.low > self.trivial)


def view_of(board: "Leaderboard", view: View) -> tuple[pd.DataFrame, list[Figures]]:
    """The rows of a view in order, and the figures of each of its metrics."""
    names = _check_metrics(board, view.metrics)
    rows = _choose(board, view)
    rows = rows.iloc[_order(board, rows, view, names)]
    contest = contests_of(board, rows, view.within)
    return rows, [_figures(board, rows, name, contest) for name in names]


def tidy(board: "Leaderboard", view: View) -> pd.DataFrame:
    """One line for each row and metric; see `Leaderboard.frame`."""
    from subnetbench.harness.leaderboard.board import KEYS

    rows, figures = view_of(board, view)
    parts = []
    for of_metric in figures:
        has = np.flatnonzero(of_metric.cell >= 0)
        part = rows[[*KEYS, "config"]].iloc[has]
        part = part.assign(
            metric=of_metric.metric,
            mean=of_metric.mean[has],
            std=of_metric.std[has],
            low=of_metric.low[has],
            high=of_metric.high[has],
            seeds=of_metric.count[has],
            **{status: rows[status].to_numpy()[has] for status in ("failed", "pruned", "partial")},
            rank=of_metric.rank[has],
            trivial=of_metric.trivial[has],
            clears_trivial=of_metric.clears_trivial()[has],
            run_ids=pd.Series(board.runs_of(of_metric.cell[has]), part.index, object),
        )
        parts.append(part.assign(_row=has))
    if not parts:
        return rows[[*KEYS, "config"]].iloc[:0]
    return pd.concat(parts).sort_values("_row", kind="stable").drop(columns="_row").reset_index(drop=True)


def column(board: "Leaderboard", rows: pd.DataFrame, name: str) -> np.ndarray | None:
    """What a user may name: a column of `rows`, the mean of a metric, or a field of the config
    (`config.lr`, or just `lr`); else None.

    Numbers come as float64 with NaN where there is none, everything else as text.
    """
    if name in rows.columns:
        values = rows[name].to_numpy()
        return values if values.dtype.kind in "biuf" else values.astype(str)
    if name in board.metrics:
        cell = board.cell_of(rows, name)
        return np.append(board.cells.mean, np.nan)[cell]
    configs = [board.config(group) for group in rows["group"]]
    found = [config.get(name, config.get(f"config.{name}")) for config in configs]
    if all(value is None for value in found):
        return None
    if all(value is None or isinstance(value, int | float) for value in found):
        return np.array([np.nan if value is None else float(value) for value in found])
    return np.array(["" if value is None else str(value) for value in found])


def _check_metrics(board: "Leaderboard", metrics: Sequence[str] | None) -> list[str]:
    if metrics is None:
        return list(board.metrics)
    for name in metrics:
        if name not in board.metrics:
            raise unknown("metric", name, board.metrics)
    return list(dict.fromkeys(metrics))


def _choose(board: "Leaderboard", view: View) -> pd.DataFrame:
    rows = board.rows
    if view.splits is not None:
        rows = rows[rows["split"].isin([*view.splits, ""])]
    if view.where:
        named = {name: column(board, rows, name) for name in language.names_in(view.where)}
        known = {name: values for name, values in named.items() if values is not None}
        offered = dict.fromkeys([*rows.columns, *board.metrics], np.zeros(len(rows)))
        rows = rows[language.select(view.where, {**offered, **known}, len(rows))]
    return rows


def _order(board: "Leaderboard", rows: pd.DataFrame, view: View, metrics: list[str]) -> np.ndarray:
    """The places of the rows, sorted as asked; by default by contest, then best first."""
    from subnetbench.harness.leaderboard.board import CONTEST, higher_is_better

    keys: list[np.ndarray] = []
    for word in view.sort:
        values = column(board, rows, word.removeprefix("-"))
        if values is None:
            raise unknown("column to sort by", word, [*rows.columns, *board.metrics])
        keys.append(_ascending(values, word.startswith("-")))
    if not view.sort:
        best = np.full(len(rows), np.inf)
        for name in reversed(metrics):
            cell = board.cell_of(rows, name, costs=False)
            sign = -1 if higher_is_better(name) is not False else 1
            best = np.where(cell >= 0, sign * np.append(board.cells.mean, np.nan)[cell], best)
        within = [_column_within(board, rows, name) for name in view.within]
        keys = [*(_ascending(key, False) for key in (*(rows[name].to_numpy() for name in CONTEST), *within)), best]
    tie_breakers = [_ascending(rows[name].to_numpy(), False) for name in ("method", "config", "variant")]
    return np.lexsort([*tie_breakers[::-1], *keys[::-1]])


def _ascending(values: np.ndarray, descending: bool) -> np.ndarray:
    """Numbers whose ascending order is the order asked for; NaN last in both."""
    if values.dtype.kind not in "biuf":
        values = pd.factorize(values.astype(str), sort=True)[0]
    return -values.astype(np.float64) if descending else values


def _column_within(board: "Leaderboard", rows: pd.DataFrame, name: str) -> np.ndarray:
    values = column(board, rows, name)
    if values is None:
        raise unknown("column to rank within", name, [*rows.columns, *board.metrics])
    if values.dtype.kind != "f":
        return values
    # Counted figures are never quite what was asked for: 0.5 and 0.50001 belong together.
    return np.array([float(f"{value:.3g}") for value in values])


def contests_of(board: "Leaderboard", rows: pd.DataFrame, within: Sequence[str]) -> np.ndarray:
    """A number for each row: rows with the same number are ranked together."""
    from subnetbench.harness.leaderboard.board import CONTEST

    keys = [*(rows[name].to_numpy() for name in CONTEST), *(_column_within(board, rows, name) for name in within)]
    contest = np.zeros(len(rows), np.int64)
    for key in keys:
        codes = pd.factorize(key)[0]
        contest = np.unique(contest * (codes.max(initial=0) + 2) + codes, return_inverse=True)[1]
    return contest


def _figures(board: "Leaderboard", rows: pd.DataFrame, metric: str, contest: np.ndarray) -> Figures:
    cells, cell = board.cells, board.cell_of(rows, metric)
    has = cell >= 0

    def spread(values: np.ndarray) -> np.ndarray:
        return np.append(values, np.nan)[np.where(has, cell, -1)]

    return Figures(
        metric=metric,
        cell=cell,
        mean=spread(cells.mean),
        std=spread(cells.std),
        half_width=spread(board.half_widths),
        count=np.append(cells.count, 0)[np.where(has, cell, -1)],
        rank=_ranks(board, board.cell_of(rows, metric, costs=False), metric, contest),
        trivial=board.trivial(rows, metric),
    )


def _ranks(board: "Leaderboard", cell: np.ndarray, metric: str, contest: np.ndarray) -> np.ndarray:
    from subnetbench.harness.leaderboard.board import higher_is_better

    ranks = np.zeros(len(cell), np.int64)
    better = higher_is_better(metric)
    if better is None:
        return ranks
    has = np.flatnonzero(cell >= 0)
    for members in pd.Series(has).groupby(contest[has]).indices.values():
        chosen = has[members]
        _, scores = board.seed_matrix(cell[chosen])
        ranks[chosen] = rank_with_ties(scores, higher_is_better=better, confidence=board.confidence)
    return ranks
