"""Who is compared over several data sets: one row of each entrant on each, its scores, and what they are scored between."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, get_args

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError, check_names, unknown
from subnetbench.harness.core.metrics import known_metric
from subnetbench.harness.leaderboard.aggregate import UNFINISHED
from subnetbench.harness.leaderboard.baselines import best_baselines
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.frames import View, column, view_of
from subnetbench.harness.leaderboard.keys import CONTEST, KEYS, higher_is_better

Missing = Literal["refuse", "drop-methods", "drop-datasets"]
MISSING: tuple[Missing, ...] = get_args(Missing)
_SHOWN = 6


@dataclass(frozen=True)
class Task:
    """A data set as it is scored: its name, the metric, which way is better (1 or -1), the best trivial baseline with its
    name, and the best possible value (NaN and infinite where there is none)."""

    name: str
    metric: str
    sign: int
    trivial: float
    baseline: str
    optimum: float


@dataclass(frozen=True)
class Entrants:
    """Scores of entrants on tasks: `values` (entrants, tasks, seeds) in the unit of each metric, NaN after the last seed;
    `steps` and `failed` are (entrants, tasks). `notes` says what was left out."""

    names: tuple[str, ...]
    tasks: tuple[Task, ...]
    values: np.ndarray
    steps: np.ndarray
    failed: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> np.ndarray:
        """Numbers of seeds, (entrants, tasks)."""
        return np.asarray((~np.isnan(self.values)).sum(axis=-1))

    def of(self, entrants: np.ndarray, tasks: np.ndarray, *notes: str) -> "Entrants":
        """Some of them, in this order; both are indices."""
        at = np.ix_(entrants, tasks)
        return replace(
            self,
            names=tuple(self.names[i] for i in entrants),
            tasks=tuple(self.tasks[i] for i in tasks),
            values=self.values[at],
            steps=self.steps[at],
            failed=self.failed[at],
            notes=(*self.notes, *notes),
        )


def entrants_of(board: Board, view: View, by: Sequence[str] = ("method",), missing: Missing = "refuse") -> Entrants:
    """The entrants of a view: rows that agree in `by` are one, with at most one row on each data set.

    Raises `UserError` where an entrant has several rows on a data set, where one is missing and that is not allowed, and
    where less than two entrants or two data sets are left.
    """
    check_names(by, "by")
    if missing not in MISSING:
        raise UserError("no such way", field="missing", value=missing, allowed=", ".join(MISSING))
    rows, _ = view_of(board, replace(view, metrics=[]))
    rows = rows.reset_index(drop=True)
    labels = _labels(board, rows, by)
    scored = (rows["split"] != "").to_numpy()
    names = tuple(dict.fromkeys(labels))
    contests = [np.asarray(at) for at in rows[scored].groupby(list(CONTEST), sort=True).indices.values()]
    contests = [np.flatnonzero(scored)[at] for at in contests]
    tasks, cells = [], []
    for members in contests:
        metric = _metric(board, str(rows["task"].iloc[members[0]]), view.metrics)
        cell = board.cell_of(rows.iloc[members], metric, costs=False)
        if (cell >= 0).any():
            tasks.append(_task(board, rows.iloc[members], contests, rows, metric))
            cells.append(_one_of_each(rows, members[cell >= 0], cell[cell >= 0], labels, names, by))
    if not tasks:
        raise UserError("no scores of this metric", field="metrics", value=", ".join(view.metrics or ()) or None)
    table = np.stack(cells, axis=1)
    seeds = max(1, int(np.append(board.cells.count, 0)[table].max()))
    values = np.full((*table.shape, seeds), np.nan)
    for at, cell in np.ndenumerate(table):
        if cell >= 0:
            found = board.cells.values[board.cells.part(int(cell))]
            values[at][: len(found)] = found
    failed = _failed(rows, labels, names, tasks, contests)
    return _complete(Entrants(names, tuple(tasks), values, board.steps_of(table), failed), missing)


def _labels(board: Board, rows: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    parts = []
    for name in by:
        found = column(board, rows, name)
        if found is None:
            raise unknown("column", name, [*rows.columns, *board.metrics])
        parts.append([f"{value:.3g}" if isinstance(value, float) else str(value) for value in found])
    return np.array([", ".join(filter(None, words)) for words in zip(*parts, strict=True)], object)


def _metric(board: Board, task: str, wanted: Sequence[str] | None) -> str:
    runs = board.records.runs
    own = pd.DataFrame({name: runs[name].to_pylist() for name in ("task", "primary_metric")}).drop_duplicates()
    primary = own.loc[own["task"] == task, "primary_metric"].tolist()
    names = list(wanted or primary)
    for name in wanted or ():
        if name not in board.metrics:
            raise unknown("metric", name, board.metrics)
    if len(names) != 1:
        raise UserError("name one metric: there are several", field="metrics", allowed=", ".join(sorted(names)))
    if higher_is_better(names[0]) is None:
        raise UserError("neither way of this metric is better", field="metrics", value=names[0])
    return str(names[0])


def _task(board: Board, members: pd.DataFrame, contests: list[np.ndarray], rows: pd.DataFrame, metric: str) -> Task:
    """A contest by the name of its data set, with what else sets it apart from others of that data set."""
    one = members.iloc[0]
    same = rows.iloc[[at[0] for at in contests]]
    same = same[same["dataset"] == one["dataset"]]
    apart = [str(one[name]) for name in CONTEST if name != "dataset" and same[name].nunique() > 1]
    sign = 1 if higher_is_better(metric) else -1
    trivial, baselines = best_baselines(board, members, metric)
    about = known_metric(metric)
    optimum = (sign * inf) if about is None else about.high if sign > 0 else about.low
    return Task(", ".join([str(one["dataset"]), *apart]), metric, sign, float(trivial[0]), str(baselines[0]), optimum)


def _one_of_each(
    rows: pd.DataFrame,
    members: np.ndarray,
    cells: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    by: Sequence[str],
) -> np.ndarray:
    """The cell of each entrant in one contest, (entrants,), -1 where there is none."""
    found = np.full(len(names), -1)
    for entrant, name in enumerate(names):
        own = np.flatnonzero(labels[members] == name)
        if len(own) > 1:
            part = rows.iloc[members[own]]
            differ = [key for key in (*KEYS, "config") if key in part and part[key].nunique() > 1]
            words = [
                f"{key} ({_listed(sorted(map(str, part[key].unique())))})" for key in differ if key != "config_hash"
            ]
            raise UserError(
                f"{name} has {len(own)} rows on {part['dataset'].iloc[0]}, which differ in {'; '.join(words) or 'code'}: "
                "choose one with --where, or tell them apart with --by",
                field="by",
                value=", ".join(by),
            )
        if len(own):
            found[entrant] = cells[own[0]]
    return found


def _failed(
    rows: pd.DataFrame, labels: np.ndarray, names: tuple[str, ...], tasks: list[Task], contests: list[np.ndarray]
) -> np.ndarray:
    """Runs without a result of each entrant on each task; those that failed before they knew their data count by name."""
    counts = np.zeros((len(names), len(tasks)), np.int64)
    unsuccessful = rows[[status for status in UNFINISHED if status != "pruned"]].sum(axis=1)
    groups = rows.assign(label=labels, bad=unsuccessful).drop_duplicates(["label", "group"])
    for at, task in enumerate(tasks):
        of_dataset = groups[groups["dataset"] == task.name.split(", ")[0]]
        sums = of_dataset.groupby("label")["bad"].sum()
        counts[:, at] = [int(sums.get(name, 0)) for name in names]
    return counts


def _complete(found: Entrants, missing: Missing) -> Entrants:
    """Only entrants that are on every task, or only tasks that every entrant is on; said in a note."""
    gaps = found.counts == 0
    if gaps.any():
        words = [
            f"{name} on {task.name}" + (f" ({failed} {'run' if failed == 1 else 'runs'} failed)" if failed else "")
            for (i, name) in enumerate(found.names)
            for j, task in enumerate(found.tasks)
            if gaps[i, j]
            for failed in [found.failed[i, j]]
        ]
        if missing == "refuse":
            raise UserError(
                f"there are no scores of {_listed(words)}: --missing drop-methods leaves out what is not on every data set, "
                "--missing drop-datasets the data sets that lack one",
                field="missing",
                value=missing,
                allowed=", ".join(MISSING),
            )
        methods = missing == "drop-methods"
        out = gaps.any(axis=1 if methods else 0)
        everything = [np.arange(count) for count in gaps.shape]
        left = [(found.names[i] if methods else found.tasks[i].name) for i in np.flatnonzero(out)]
        rows, columns = (np.flatnonzero(~out), everything[1]) if methods else (everything[0], np.flatnonzero(~out))
        found = found.of(rows, columns, f"Left out: {_listed(left)}, because there are no scores of {_listed(words)}.")
    for count, what in ((len(found.names), "entrants"), (len(found.tasks), "data sets")):
        if count < 2:
            raise UserError(f"needs at least two {what}; {count} {'is' if count == 1 else 'are'} left", field="where")
    return found


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
