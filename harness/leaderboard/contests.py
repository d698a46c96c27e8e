"""The tables that people read of a leaderboard: one a contest, with the columns in which its rows differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import UNFINISHED
from subnetbench.harness.leaderboard.attribution import MEASURED_BY
from subnetbench.harness.leaderboard.beside import beside
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.document import Column, Document, Table, number, table_of
from subnetbench.harness.leaderboard.foundations import HEADERS, short, told_apart_by
from subnetbench.harness.leaderboard.frames import MetricColumn, View, column, contests_of, selection_of, view_of
from subnetbench.harness.leaderboard.keys import COSTS, higher_is_better
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import PublishedValue
from subnetbench.harness.leaderboard.published_table import published_tables
from subnetbench.harness.records.record import TRIVIAL

_DESCRIBED = (
    *("network", "variant", "gallery_variant", MEASURED_BY, "config", "budget", "preset", "tuned", "schema_meaning"),
)
_HEADERS = {"gallery_variant": "gallery", "schema_meaning": "schema", MEASURED_BY: "input of"}
_FAILURES = 10


def document(board: Board, view: View, published: Sequence[PublishedValue] = ()) -> Document:
    """The tables of a view; `published` values that belong to its rows follow in a table of their own."""
    if view.metrics is None:
        view = replace(view, metrics=board.default_metrics)
    rows, metrics = view_of(board, view)
    scored = np.flatnonzero((rows["split"] != "").to_numpy())
    numbers = contests_of(board, rows, view.within)[scored]
    contests = [scored[members] for members in pd.Series(numbers).groupby(numbers, sort=False).indices.values()]
    limit = len(rows) if view.limit is None else view.limit
    apart = {name: column(board, rows, name) for name in view.within}
    tables = [_contest(rows, metrics, members[:limit], apart, view.spread) for members in contests]
    cut = [
        f"{len(members) - limit:,} more rows of {table.title} are not shown: filter, raise the limit, or write a file."
        for members, table in zip(contests, tables, strict=True)
        if len(members) > limit
    ]
    printed = beside(board, rows, [metric.metric for metric in metrics], published)
    more, of_published = published_tables(printed)
    return Document(
        [*tables, *more], [*cut, *of_published, *notes(board, rows, selection_of(board, view)), *_failures(board)]
    )


def _contest(
    rows: pd.DataFrame,
    metrics: list[MetricColumn],
    members: np.ndarray,
    apart: Mapping[str, np.ndarray | None],
    spread: bool,
) -> Table:
    part = rows.iloc[members]
    own = [metric for metric in metrics if (metric.cell[members] >= 0).any()]
    lead = _lead(own, members)
    seeds = part["seeds"].to_numpy()
    columns = [] if lead is None else _rank_columns(lead, members, part)
    beside = [column.header for column in columns]
    columns.append(Column.of("method", part["method"]))
    columns += [Column.of(_HEADERS.get(name, name), part[name]) for name in _described(part)]
    columns += [Column(HEADERS.get(name, name), short(name, part[name])) for name in told_apart_by(part)]
    columns.append(Column.of("seeds", seeds, numeric=True))
    columns += [
        Column.of(status, part[status], numeric=True)
        for status in UNFINISHED
        if part[status].any() and status not in beside
    ]
    columns += _choice(part)
    for metric in own:
        cells = [_mean(metric, int(at), n, spread) for at, n in zip(members, seeds, strict=True)]
        columns.append(Column(metric.metric, cells, numeric=True))
        if metric is lead and not np.isnan(metric.trivial[members]).all():
            columns.append(Column("trivial", _trivial(metric, members), numeric=True))
        if metric is lead and not np.isnan(metric.frozen[members]).all():
            columns.append(Column("frozen", _frozen(metric, members), numeric=True))
    ranked = f" · ranked by {lead.metric}" if lead is not None else ""
    return table_of(contest_title(part) + _apart(apart, int(members[0])) + ranked, columns)


def _choice(part: pd.DataFrame) -> list[Column]:
    """Among how many configs each row was chosen, and the score that chose it, where rows were chosen."""
    if "chosen_from" not in part:
        return []
    scores = [number(score) for score in part["validation"]]
    return [Column.of("chosen_from", part["chosen_from"], numeric=True), Column("validation", scores, numeric=True)]


def _apart(apart: Mapping[str, np.ndarray | None], at: int) -> str:
    """The values of the columns within which rows are ranked, for a title; `at` is any row of the contest."""
    words = ""
    for name, values in apart.items():
        if values is not None and name not in ("network", "budget", "preset"):
            value = values[at]
            known = value if not isinstance(value, float) else "unknown" if np.isnan(value) else f"{value:.3g}"
            words += f" · {name} {known}"
    return words


def contest_title(rows: pd.DataFrame) -> str:
    """What all rows of a contest have in common, in words."""
    one, shown = rows.iloc[0], _described(rows)
    common = [f"{name} {one[name]}" for name in ("network", "budget", "preset") if name not in shown and one[name]]
    title = [one["dataset"], one["task"], one["split"], one["protocol"], f"data {one['data_digest']}", *common]
    title += ["tuned"] * bool(one["tuned"] and "tuned" not in shown)
    return " · ".join(str(word) for word in title if word)


def _described(rows: pd.DataFrame) -> list[str]:
    """The columns in which the rows of a contest differ."""
    return [name for name in _DESCRIBED if rows[name].nunique() > 1 and name != "schema_meaning"]


def _lead(own: Sequence[MetricColumn], members: np.ndarray) -> MetricColumn | None:
    """The metric that ranks: the first by which rows are ranked, or would be if they had more seeds."""
    ranked = [metric for metric in own if (metric.rank[members] > 0).any()]
    scores = [m for m in own if m.metric not in COSTS and higher_is_better(m.metric) is not None]
    return next(iter([*ranked, *scores]), None)


def _rank_columns(metric: MetricColumn, members: np.ndarray, part: pd.DataFrame) -> list[Column]:
    """The rank, its interval (or why a row has no rank), and failed runs: what a rank is worth depends on both."""
    shown = [_rank(*line) for line in zip(*(a[members] for a in _of_rank(metric)), strict=True)]
    columns = [
        Column("rank", [rank for rank, _ in shown], numeric=True),
        Column("rank_range", [interval for _, interval in shown], numeric=True),
    ]
    if part["failed"].any():
        columns.append(Column.of("failed", part["failed"], numeric=True))
    return columns


def _of_rank(metric: MetricColumn) -> tuple[np.ndarray, ...]:
    return metric.rank, metric.rank_best, metric.rank_worst, metric.count


def _rank(rank: int, best: int, worst: int, seeds: int) -> tuple[str, str]:
    if rank:
        return str(rank), f"{best}–{worst}" if best < worst else str(best)
    return "–", "one seed" if seeds == 1 else ""


def _mean(metric: MetricColumn, at: int, seeds: int, spread: bool) -> str:
    if metric.cell[at] < 0:
        return "–"
    if metric.apart[at]:
        return "–*"
    text = number(metric.mean[at], metric.half_width[at])
    if spread and not np.isnan(metric.std[at]):
        text += f" sd {number(metric.std[at])}"
    return text if metric.count[at] == seeds else f"{text} [{metric.count[at]}]"


def _trivial(metric: MetricColumn, members: np.ndarray) -> list[str]:
    """The best baseline, whether the interval clears it, where there is one that can tell, and the baseline's name."""
    names = np.where(metric.baseline == TRIVIAL, "", metric.baseline)
    return _beside(
        metric.trivial[members], metric.clears_trivial()[members], metric.half_width[members], names[members]
    )


def _frozen(metric: MetricColumn, members: np.ndarray) -> list[str]:
    """The same of baselines on features of a frozen network."""
    names = metric.frozen_baseline[members]
    return _beside(metric.frozen[members], metric.clears_frozen()[members], metric.half_width[members], names)


def _beside(values: np.ndarray, cleared: np.ndarray, half_width: np.ndarray, names: np.ndarray) -> list[str]:
    marks = ["" if np.isnan(half) else " ✓" if clear else " ✗" for clear, half in zip(cleared, half_width, strict=True)]
    cells = [f"{number(value)}{mark} {name}" for value, mark, name in zip(values, marks, names, strict=True)]
    return ["–" if np.isnan(value) else cell.rstrip() for value, cell in zip(values, cells, strict=True)]


def _reason(kind: str, error: str) -> list[str]:
    """Why a run has no result, as far as its record says."""
    return [": ".join(filter(None, (kind, error)))] if kind or error else []


def _failures(board: Board) -> list[str]:
    failures = board.failures()
    lines = [
        f"  {f.method} on {f.dataset}, seed {f.seed}: {', '.join([str(f.status), *_reason(str(f.error_kind), str(f.error))])}  ({f.run_id})"
        for f in failures.head(_FAILURES).itertuples()
    ]
    if len(failures) > _FAILURES:
        lines.append(f"  and {len(failures) - _FAILURES} more")
    return ["Runs without a result:", *lines] if lines else []
