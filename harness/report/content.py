"""What a report shows, as plain JSON: rows with their figures, seeds and runs, learning curves, studies, notes.

The page and the figures for papers draw the same content, so they cannot tell different stories.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.metrics import parse_metric
from subnetbench.harness.leaderboard.aggregate import UNFINISHED
from subnetbench.harness.leaderboard.board import CONTEST, Leaderboard, higher_is_better
from subnetbench.harness.leaderboard.frames import Figures, View, view_of
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import Figure, beside
from subnetbench.harness.leaderboard.tables import contest_title
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.schema import RUN_COSTS
from subnetbench.harness.report.runs import Detail, describe_runs
from subnetbench.harness.report.studies import describe_studies
from subnetbench.harness.report.texts import cleaned, significant

Content = dict[str, Any]

_NAMES = ("method", "network", "variant", "gallery_variant", "config", "budget", "preset")
_COSTS_OF_SEARCH = ("lifetime_", "cold_", "warm_", "cascade_", "encode", "candidates", "search_")
"""Beginnings of metrics that are costs although they are measured on a split."""
_RUN_METRICS = {
    "wall_seconds": "seconds from start to record, over all resumptions",
    "train_seconds": "seconds spent in training stages",
    "gpu_hours": "devices times hours",
}


@dataclass(frozen=True)
class Options:
    """What goes into a report: `view` chooses rows as for the leaderboard, `published` figures are set beside them."""

    title: str = "Leaderboard"
    view: View = field(default_factory=View)
    published: Sequence[Figure] = ()
    detail: Detail = field(default_factory=Detail)
    confidence: float = 0.95


def report_content(paths: Path | str | Iterable[Path | str], options: Options | None = None) -> Content:
    """Everything that the report of some result folders shows. Raises `UserError` where no run is recorded."""
    from subnetbench import __version__

    options = options or Options()
    board = Leaderboard.from_records(read_records(paths), confidence=options.confidence)
    if not len(board.records.runs):
        raise UserError("no run is recorded there", field="PATH", value=_listed(paths))
    metrics = options.view.metrics or list(dict.fromkeys([*board.default_metrics, *board.metrics]))
    rows, figures = view_of(board, replace(options.view, metrics=metrics))
    has_figure = np.any([figure.cell >= 0 for figure in figures], axis=0) & (rows["split"] != "").to_numpy()
    rows, figures = rows[has_figure], [figure.at(has_figure) for figure in figures]
    unfinished = np.flatnonzero((board.runs.group >= 0) & ~board.runs.finished)
    trials = np.flatnonzero(~board.records.runs["trial"].is_null().to_numpy(zero_copy_only=False))
    cells = {int(cell) for figure in figures for cell in figure.cell if cell >= 0}
    used = [board.cells.runs[board.cells.part(cell)] for cell in cells]
    places = np.unique(np.concatenate([unfinished, trials, *used])).astype(np.int64)
    number = {int(place): at for at, place in enumerate(places)}
    contests = _contests(board, rows, figures, options.view)
    content: Content = {
        "title": options.title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": f"subnetbench {__version__}",
        "confidence": options.confidence,
        "counts": _counts(board),
        "metrics": {figure.metric: _about(board, figure.metric) for figure in figures},
        "contests": [contest for contest, _ in contests],
        "rows": _rows(board, rows, figures, contests, number),
        "groups": _groups(board, rows),
        "runs": describe_runs(board.records.runs, places.tolist(), options.detail),
        "unfinished": [number[int(place)] for place in unfinished],
        "studies": describe_studies(board.records, trials, number),
        "published": _published(board, rows, metrics, options.published),
        "notes": notes(board, rows),
    }
    if not options.detail.private:
        content["notes"] = [note for note in content["notes"] if not note.startswith("  ")]
    return cleaned(content)


def _listed(paths: Path | str | Iterable[Path | str]) -> str:
    return str(paths) if isinstance(paths, Path | str) else ", ".join(map(str, paths))


def _counts(board: Leaderboard) -> dict[str, int]:
    tally = board.tally
    counts = {"records": tally.records, "finished": int(board.runs.finished.sum())}
    counts |= {status: int(board.runs.count(status).sum()) for status in UNFINISHED}
    return counts | {"trials": tally.trials, "superseded": tally.superseded, "skipped": len(board.records.skipped)}


def _about(board: Leaderboard, metric: str) -> dict[str, Any]:
    """What a metric means, which way is better (1, -1, or 0 for neither), whether it is a cost, and a share of 1."""
    better = higher_is_better(metric)
    try:
        known = parse_metric(metric)[0]
        about, share = known.description, known.high == 1.0
    except UserError:
        about, share = _RUN_METRICS.get(metric, ""), False
    cells = board.cells.metric == board.metric_code(metric)
    of_network = bool((board.scored.split[board.cells.row[cells]] == "").all())
    cost = metric in RUN_COSTS or of_network or metric.startswith(_COSTS_OF_SEARCH)
    return {
        "about": about,
        "better": 0 if better is None else 1 if better else -1,
        "cost": cost,
        "share": share,
    }


def _contests(
    board: Leaderboard, rows: pd.DataFrame, figures: Sequence[Figures], view: View
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """The contests of the rows: title, the metric that ranks it, the metrics shown first; and its rows."""
    contests = []
    for members in rows.groupby(list(CONTEST), sort=False).indices.values():
        places = np.asarray(members)
        own = [figure.metric for figure in figures if (figure.cell[places] >= 0).any()]
        quality = [name for name in own if not _about(board, name)["cost"]]
        wanted = list(view.metrics or board.default_metrics)
        lead = next((name for name in wanted if name in quality), quality[0] if quality else "")
        contest: dict[str, Any] = {name: str(rows[name].iloc[places[0]]) for name in CONTEST}
        contest |= {"title": contest_title(rows.iloc[places]), "lead": lead, "metrics": [n for n in wanted if n in own]}
        contests.append((contest, places))
    return contests


def _rows(
    board: Leaderboard,
    rows: pd.DataFrame,
    figures: Sequence[Figures],
    contests: Sequence[tuple[dict[str, Any], np.ndarray]],
    number: dict[int, int],
) -> list[dict[str, Any]]:
    contest_of = np.full(len(rows), -1)
    for index, (_, places) in enumerate(contests):
        contest_of[places] = index
    group_of = {group: at for at, group in enumerate(dict.fromkeys(rows["group"]))}
    cells: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for figure in figures:
        cleared = figure.clears_trivial()
        for at in np.flatnonzero(figure.cell >= 0):
            cells[at][figure.metric] = _cell(board, figure, int(at), bool(cleared[at]), number)
    columns = {name: rows[name].tolist() for name in (*_NAMES, "tuned", "seeds", *UNFINISHED)}
    return [
        {
            "contest": int(contest_of[at]),
            "group": group_of[group],
            **{name: values[at] for name, values in columns.items()},
            "cells": cells[at],
        }
        for at, group in enumerate(rows["group"])
    ]


def _cell(board: Leaderboard, figure: Figures, at: int, cleared: bool, number: dict[int, int]) -> dict[str, Any]:
    part = board.cells.part(int(figure.cell[at]))
    cell: dict[str, Any] = {
        "mean": significant(float(figure.mean[at])),
        "std": significant(float(figure.std[at])),
        "half": significant(float(figure.half_width[at])),
        "values": [significant(value) for value in board.cells.values[part].tolist()],
        "runs": [number[place] for place in board.cells.runs[part].tolist()],
    }
    if figure.rank[at]:
        cell["rank"] = int(figure.rank[at])
    if np.isfinite(figure.trivial[at]):
        cell["trivial"] = significant(float(figure.trivial[at]))
        cell["clears"] = cleared if np.isfinite(figure.half_width[at]) else None
    return cell


def _groups(board: Leaderboard, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What runs of a row have in common beyond its columns, in the order in which rows meet them."""
    return [
        {
            "config": board.config(int(group)),
            "config_hash": str(board.runs.groups["config_hash"][group]),
            "data_digest": str(board.runs.groups["data_digest"][group]),
            "protocol": str(board.runs.groups["protocol"][group]),
            "dataset": str(board.runs.groups["dataset"][group]),
            "task": str(board.runs.groups["task"][group]),
        }
        for group in dict.fromkeys(rows["group"])
    ]


def _published(
    board: Leaderboard, rows: pd.DataFrame, metrics: Sequence[str], figures: Sequence[Figure]
) -> list[dict[str, Any]]:
    lines = beside(board, rows, metrics, figures)
    numbers = ("measured", "half_width", "published", "low", "high", "difference")
    for name in numbers:
        lines[name] = [significant(float(value)) for value in lines[name]]
    return [{str(name): value for name, value in line.items()} for line in lines.astype(object).to_dict("records")]
