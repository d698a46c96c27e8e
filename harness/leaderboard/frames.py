"""Rows of a leaderboard, filtered and ordered, with one metric after the other as arrays or as a tidy frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError, check_names, unknown
from subnetbench.harness.core.metrics import depends_on_machine
from subnetbench.harness.leaderboard import where as language
from subnetbench.harness.leaderboard.aggregate import FOUNDATIONS
from subnetbench.harness.leaderboard.attribution import MEASURED_BY
from subnetbench.harness.leaderboard.baselines import best_baselines
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.keys import CONTEST, KEYS, higher_is_better
from subnetbench.harness.leaderboard.ranking import FEWEST_SEEDS, Ranks, rank_rows
from subnetbench.harness.leaderboard.selection import CHOICE, VALIDATION, Selection, choose
from subnetbench.harness.leaderboard.spending import TOTAL

_SHOWN = ("config", MEASURED_BY, TOTAL)
"""What frames say of a row besides its keys."""


@dataclass(frozen=True)
class View:
    """What is shown of a leaderboard, and in which order; the fields are described in `Leaderboard.frame`."""

    metrics: Sequence[str] | None = None
    where: str | None = None
    splits: Sequence[str] | None = ("test",)
    sort: Sequence[str] = ()
    within: Sequence[str] = ()
    select: str | None = None
    """`validation`: of each method's configs, those that are best on validation alone; see `selection.choose`."""
    spread: bool = False
    """Tables for people show standard deviations beside means and intervals; frames always have them."""
    limit: int | None = 500
    """Most rows of each table for people; frames and files of data are never cut."""
    by_run: bool = False
    """Networks of inputs stay with the runs that measured them, as in a matrix of pairs."""

    def __post_init__(self) -> None:
        for field in ("metrics", "splits", "sort", "within"):
            check_names(getattr(self, field), field)
        if self.select not in (None, VALIDATION):
            raise UserError("no such choice", field="select", value=self.select, allowed=VALIDATION)


@dataclass(frozen=True)
class MetricColumn:
    """One metric of some rows; all arrays are (rows,). `cell` is -1 where a row has no such value.

    `trivial` is the best trivial baseline of the data and `baseline` its name.
    `interval` says over what the interval is: `seeds`, `items` or `joint`; empty where there is none. `apart` says in what the machines differ on which a time was measured: it has no mean then. Else it is empty.
    """

    metric: str
    cell: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    half_width: np.ndarray
    interval: np.ndarray
    count: np.ndarray
    rank: np.ndarray
    rank_best: np.ndarray
    rank_worst: np.ndarray
    trivial: np.ndarray
    baseline: np.ndarray
    frozen: np.ndarray
    frozen_baseline: np.ndarray
    apart: np.ndarray

    @property
    def low(self) -> np.ndarray:
        return np.asarray(self.mean - self.half_width)

    @property
    def high(self) -> np.ndarray:
        return np.asarray(self.mean + self.half_width)

    def at(self, rows: np.ndarray) -> "MetricColumn":
        """The same of some rows: indices, or a mask."""
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def clears_trivial(self) -> np.ndarray:
        """Whether the whole interval is better than the trivial baseline; False where either is missing."""
        return self._clears(self.trivial)

    def clears_frozen(self) -> np.ndarray:
        """The same of the baseline on features of a frozen network."""
        return self._clears(self.frozen)

    def _clears(self, value: np.ndarray) -> np.ndarray:
        return (self.high < value) if higher_is_better(self.metric) is False else (self.low > value)


def view_of(board: Board, view: View) -> tuple[pd.DataFrame, list[MetricColumn]]:
    """The rows of a view in order, and each of its metrics."""
    names = _check_metrics(board, view.metrics)
    check_splits([board], view.splits)
    chosen = selection_of(board, view)
    rows = _choose(board, view) if chosen is None else chosen.rows
    rows = rows.iloc[_order(board, rows, view, names)]
    contest = contests_of(board, rows, view.within)
    return rows, [_metric_column(board, rows, name, contest) for name in names]


def tidy(board: Board, view: View) -> pd.DataFrame:
    """One line for each row and metric; see `Leaderboard.frame`."""
    rows, columns = view_of(board, view)
    parts = []
    for of_metric in columns:
        has = np.flatnonzero(of_metric.cell >= 0)
        part = rows[[*KEYS, *_SHOWN, *(name for name in CHOICE if name in rows)]].iloc[has]
        part = part.assign(
            metric=of_metric.metric,
            mean=of_metric.mean[has],
            std=of_metric.std[has],
            low=of_metric.low[has],
            high=of_metric.high[has],
            interval=of_metric.interval[has],
            seeds=of_metric.count[has],
            **{status: rows[status].to_numpy()[has] for status in ("failed", "pruned", "partial")},
            rank=of_metric.rank[has],
            rank_best=of_metric.rank_best[has],
            rank_worst=of_metric.rank_worst[has],
            trivial=of_metric.trivial[has],
            baseline=of_metric.baseline[has],
            clears_trivial=of_metric.clears_trivial()[has],
            frozen=of_metric.frozen[has],
            frozen_baseline=of_metric.frozen_baseline[has],
            clears_frozen=of_metric.clears_frozen()[has],
            not_averaged=of_metric.apart[has],
            run_ids=pd.Series(board.runs_of(of_metric.cell[has]), part.index, object),
        )
        parts.append(part.assign(_row=has))
    if not parts:
        return rows[[*KEYS, *_SHOWN]].iloc[:0]
    return pd.concat(parts).sort_values("_row", kind="stable").drop(columns="_row").reset_index(drop=True)


def column(board: Board, rows: pd.DataFrame, name: str) -> np.ndarray | None:
    """What a user may name: a column of `rows`, the mean of a metric, or a field of the config
    (`config.lr`, or just `lr`); else None.

    Numbers come as float64 with NaN where there is none, everything else as text.
    """
    if name in rows.columns:
        values = rows[name].to_numpy()
        return np.asarray(values if values.dtype.kind in "biuf" else values.astype(str))
    if name in board.metrics:
        cell = board.cell_of(rows, name)
        return np.asarray(np.append(board.cells.mean, np.nan)[cell])
    configs = [board.config(group) for group in rows["group"]]
    found = [config.get(name, config.get(f"config.{name}")) for config in configs]
    if all(value is None for value in found):
        return None
    if all(value is None or isinstance(value, int | float) for value in found):
        return np.array([np.nan if value is None else float(value) for value in found])
    return np.array(["" if value is None else str(value) for value in found])


def _check_metrics(board: Board, metrics: Sequence[str] | None) -> list[str]:
    if metrics is None:
        return list(board.metrics)
    for name in metrics:
        if name not in board.metrics:
            raise unknown("metric", name, board.metrics)
    return list(dict.fromkeys(metrics))


def check_splits(boards: Sequence[Board], splits: Sequence[str] | None) -> None:
    """Raise `UserError` for a split of which no board has a score. Without any test score, `test` shows no row, and the
    notes say which splits there are."""
    there = sorted({split for board in boards for split in board.rows["split"].unique()} - {""})
    for name in splits or ():
        if there and name not in there and name != "test":
            raise unknown("split", name, there)


def _choose(board: Board, view: View) -> pd.DataFrame:
    rows = board.rows_by_run if view.by_run else board.rows
    if view.splits is not None:
        rows = rows[rows["split"].isin([*view.splits, ""])]
    return rows if not view.where else filtered(board, rows, view.where)


def selection_of(board: Board, view: View) -> Selection | None:
    """The configs that a view chooses on validation, and what is to be said of the choice; None: it chooses none.

    The filter of the view is about rows on the validation split, so that no test score takes part in the choice.
    """
    if view.select is None:
        return None
    candidates = _choose(board, replace(view, splits=(view.select,)))
    candidates = candidates[candidates["split"] != ""]
    shown = board.rows[board.rows["split"] != ""]
    if view.splits is not None:
        shown = shown[shown["split"].isin(view.splits)]
    return choose(board, candidates, shown, [_column_within(board, candidates, name) for name in view.within])


def filtered(board: Board, rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows for which an expression holds; raises `UserError` where it is none, or a name is not known."""
    named = {name: column(board, rows, name) for name in language.names_in(where)}
    known = {name: values for name, values in named.items() if values is not None}
    offered = dict.fromkeys([*rows.columns, *board.metrics], np.zeros(len(rows)))
    return rows[language.select(where, {**offered, **known}, len(rows))]


def _order(board: Board, rows: pd.DataFrame, view: View, metrics: list[str]) -> np.ndarray:
    """The indices of the rows as the view sorts them; by default by contest, then best first, rows of one seed last."""
    keys: list[np.ndarray] = []
    for word in view.sort:
        values = column(board, rows, word.removeprefix("-"))
        if values is None:
            raise unknown("column to sort by", word, [*rows.columns, *board.metrics])
        keys.append(_ascending(values, word.startswith("-")))
    if not view.sort:
        best, few = np.full(len(rows), np.inf), np.zeros(len(rows))
        for name in reversed(metrics):
            cell = board.cell_of(rows, name, costs=False)
            sign = -1 if higher_is_better(name) is not False else 1
            best = np.where(cell >= 0, sign * np.append(board.cells.mean, np.nan)[cell], best)
            few = np.where(cell >= 0, np.append(board.cells.count, 0)[cell] < FEWEST_SEEDS, few)
        within = [_column_within(board, rows, name) for name in view.within]
        keys = [*(_ascending(key, False) for key in (*(rows[name].to_numpy() for name in CONTEST), *within)), few, best]
    names = ("method", "config", "variant", *FOUNDATIONS)
    tie_breakers = [_ascending(rows[name].to_numpy(), False) for name in names]
    return np.lexsort([*tie_breakers[::-1], *keys[::-1]])


def _ascending(values: np.ndarray, descending: bool) -> np.ndarray:
    """Numbers whose ascending order is the requested order; NaN last in both."""
    if values.dtype.kind not in "biuf":
        values = pd.factorize(values.astype(str), sort=True)[0]
    return -values.astype(np.float64) if descending else values


def _column_within(board: Board, rows: pd.DataFrame, name: str) -> np.ndarray:
    values = column(board, rows, name)
    if values is None:
        raise unknown("column to rank within", name, [*rows.columns, *board.metrics])
    if values.dtype.kind != "f":
        return values
    # Counted values are never quite those that were configured: 0.5 and 0.50001 belong together.
    return np.array([float(f"{value:.3g}") for value in values])


def contests_of(board: Board, rows: pd.DataFrame, within: Sequence[str]) -> np.ndarray:
    """A number for each row: rows with the same number are ranked together."""
    keys = [*(rows[name].to_numpy() for name in CONTEST), *(_column_within(board, rows, name) for name in within)]
    contest = np.zeros(len(rows), np.int64)
    for key in keys:
        codes = pd.factorize(key)[0]
        contest = np.unique(contest * (codes.max(initial=0) + 2) + codes, return_inverse=True)[1]
    return contest


def _metric_column(board: Board, rows: pd.DataFrame, metric: str, contest: np.ndarray) -> MetricColumn:
    cells, cell = board.cells, board.cell_of(rows, metric)
    has = cell >= 0
    intervals = board.intervals.of(metric, cell)
    trivial, baseline = best_baselines(board, rows, metric)
    frozen, frozen_baseline = best_baselines(board, rows, metric, frozen=True)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.append(values, np.nan)[np.where(has, cell, -1)]

    ranks = _ranks(board, board.cell_of(rows, metric, costs=False), metric, contest)
    return MetricColumn(
        metric=metric,
        cell=cell,
        mean=spread(cells.mean),
        std=spread(cells.std),
        half_width=intervals.half,
        interval=intervals.kind,
        count=np.append(cells.count, 0)[np.where(has, cell, -1)],
        rank=ranks.rank,
        rank_best=ranks.best,
        rank_worst=ranks.worst,
        trivial=trivial,
        baseline=baseline,
        frozen=frozen,
        frozen_baseline=frozen_baseline,
        apart=np.append(board.apart, "")[np.where(has, cell, -1)],
    )


def _on_one_machine(board: Board, cells: np.ndarray) -> bool:
    runs = np.concatenate([board.cells.runs[board.cells.part(int(cell))] for cell in cells])
    return len(np.unique(board.machines.key.codes[runs])) == 1


def _ranks(board: Board, cell: np.ndarray, metric: str, contest: np.ndarray) -> Ranks:
    ranks = Ranks(*(np.zeros(len(cell), np.int64) for _ in range(3)))
    better = higher_is_better(metric)
    if better is None:
        return ranks
    has = np.flatnonzero(cell >= 0)
    for members in pd.Series(has).groupby(contest[has]).indices.values():
        chosen = has[members]
        if depends_on_machine(metric) and not _on_one_machine(board, cell[chosen]):
            continue
        _, scores = board.seed_matrix(cell[chosen])
        steps = board.steps_of(cell[chosen])
        known = steps[~np.isnan(steps)]  # all rows are of the same items, so one that knows is enough
        steps = np.where(np.isnan(steps), known.max() if len(known) else np.nan, steps)
        found = rank_rows(scores, steps, higher_is_better=better, confidence=board.confidence)
        ranks.rank[chosen], ranks.best[chosen], ranks.worst[chosen] = found.rank, found.best, found.worst
    return ranks
