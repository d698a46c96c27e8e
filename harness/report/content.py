"""What a report shows, gathered from records and run folders.

The page and the figures for papers draw the same content, so they cannot contradict each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from subnetbench import __version__
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.leaderboard.aggregate import UNFINISHED
from subnetbench.harness.leaderboard.attribution import MEASURED_BY
from subnetbench.harness.leaderboard.beside import Beside, beside
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.contests import contest_title
from subnetbench.harness.leaderboard.foundations import short, told_apart_by
from subnetbench.harness.leaderboard.frames import MetricColumn, View, selection_of, view_of
from subnetbench.harness.leaderboard.keys import CONTEST, higher_is_better
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import PublishedValue
from subnetbench.harness.leaderboard.selection import CHOICE
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.schema import RUN_COSTS
from subnetbench.harness.report.overall import describe_overall
from subnetbench.harness.report.runs import Detail, describe_runs
from subnetbench.harness.report.studies import describe_studies
from subnetbench.harness.report.texts import cleaned, significant
from subnetbench.harness.report.types import Cell, Contest, Group, MetricInfo, ReportContent, Row

_NAMES = ("method", "network", "variant", "gallery_variant", MEASURED_BY, "config", "budget", "preset")
_STANDS_ON = {"code_digest": "code", "files_digest": "files", "numerics": "numerics"}
_COSTS_OF_SEARCH = ("lifetime_", "cold_", "warm_", "cascade_", "encode", "candidates", "search_")
"""Beginnings of metrics that are costs although they are measured on a split."""
_RUN_METRICS = {
    "wall_seconds": "seconds from start to record, over all resumptions",
    "train_seconds": "seconds spent in training stages",
    "gpu_hours": "devices times hours",
    "training_macs": "multiply-accumulates of training, forward and backward",
    "input_training_macs": "multiply-accumulates of the training of the runs that it starts from",
    "images_seen": "training images, each time that a step used one",
    "steps": "optimizer steps",
    "energy_joules": "energy of the device while training",
}


@dataclass(frozen=True)
class Options:
    """What goes into a report: `view` chooses rows as for the leaderboard, `published` values are set beside them."""

    title: str = "Leaderboard"
    view: View = field(default_factory=View)
    published: Sequence[PublishedValue] = ()
    detail: Detail = field(default_factory=Detail)
    confidence: float = 0.95
    interval: str = "joint"


def report_content(paths: Path | str | Iterable[Path | str], options: Options | None = None) -> ReportContent:
    """Everything that the report of some result folders shows.

    Args:
        paths: Results folders or record files.
        options: Title, rows, and how much is shown of single runs.

    Raises:
        UserError: A path does not exist, no run is recorded there, or a name in the view is not known.

    Example:
        >>> from subnetbench.harness.report import report_content
        >>> content = report_content("tests/data/version_0_1")
        >>> content.counts["finished"], len(content.contests), [study.study for study in content.studies]
        (4, 2, ['search.triplet'])
    """
    options = options or Options()
    board = _board(paths, options)
    metrics = options.view.metrics or list(dict.fromkeys([*board.default_metrics, *board.metrics]))
    rows, columns = view_of(board, replace(options.view, metrics=metrics))
    has_value = np.any([column.cell >= 0 for column in columns], axis=0) & (rows["split"] != "").to_numpy()
    rows, columns = rows[has_value], [column.at(has_value) for column in columns]
    unfinished = np.flatnonzero((board.runs.group >= 0) & ~board.runs.finished)
    trials = np.flatnonzero(~board.records.runs["trial"].is_null().to_numpy(zero_copy_only=False))
    cells = {int(cell) for column in columns for cell in column.cell if cell >= 0}
    used = [board.cells.runs[board.cells.part(cell)] for cell in cells]
    shown = np.unique(np.concatenate([unfinished, trials, *used])).astype(np.int64)
    number = {int(record): at for at, record in enumerate(shown)}
    contests = _contests(board, rows, columns, options.view)
    printed = beside(board, rows, metrics, options.published)
    over_tasks, not_compared = describe_overall(board, options.view)
    content = ReportContent(
        title=options.title,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        program=f"subnetbench {__version__}",
        confidence=options.confidence,
        counts=_counts(board),
        metrics={column.metric: _about(board, column.metric) for column in columns},
        contests=[contest for contest, _ in contests],
        rows=_rows(board, rows, columns, [members for _, members in contests], number),
        groups=_groups(board, rows),
        runs=describe_runs(board.records.runs, shown.tolist(), options.detail),
        unfinished=[number[int(record)] for record in unfinished],
        studies=describe_studies(board.records, trials, number),
        overall=over_tasks,
        published=_published(printed.lines),
        notes=_notes([*printed.notes, *not_compared, *notes(board, rows, selection_of(board, options.view))], options),
    )
    return cleaned(content)


def _board(paths: Path | str | Iterable[Path | str], options: Options) -> Board:
    board = Board.from_records(read_records(paths), confidence=options.confidence, interval=options.interval)
    if not len(board.records.runs):
        raise UserError("no run is recorded there", field="PATH", value=_listed(paths))
    return board


def _notes(found: Sequence[str], options: Options) -> list[str]:
    """Without the indented ones, which name files, where the report is for others."""
    return [note for note in found if options.detail.private or not note.startswith("  ")]


def _listed(paths: Path | str | Iterable[Path | str]) -> str:
    return str(paths) if isinstance(paths, Path | str) else ", ".join(map(str, paths))


def _counts(board: Board) -> dict[str, int]:
    tally = board.tally
    counts = {"records": tally.records, "finished": int(board.runs.finished.sum())}
    counts |= {status: int(board.runs.count(status).sum()) for status in UNFINISHED}
    return counts | {"trials": tally.trials, "superseded": tally.superseded, "skipped": len(board.records.skipped)}


def _about(board: Board, metric: str) -> MetricInfo:
    better = higher_is_better(metric)
    try:
        known = parse_metric(metric)[0]
        about, share = known.description, known.high == 1.0
    except UserError:
        about, share = _RUN_METRICS.get(metric, ""), False
    cells = board.cells.metric == board.metric_code(metric)
    of_network = bool((board.scored.split[board.cells.row[cells]] == "").all())
    cost = metric in RUN_COSTS or of_network or metric.startswith(_COSTS_OF_SEARCH)
    return MetricInfo(about, 0 if better is None else 1 if better else -1, cost, share)


def _contests(
    board: Board, rows: pd.DataFrame, columns: Sequence[MetricColumn], view: View
) -> list[tuple[Contest, np.ndarray]]:
    """The contests of the rows, each with the indices of its rows."""
    contests = []
    for indices in rows.groupby(list(CONTEST), sort=False).indices.values():
        members = np.asarray(indices)
        own = [column.metric for column in columns if (column.cell[members] >= 0).any()]
        quality = [name for name in own if not _about(board, name).cost]
        wanted = list(view.metrics or board.default_metrics)
        lead = next((name for name in wanted if name in quality), quality[0] if quality else "")
        first = {name: str(rows[name].iloc[members[0]]) for name in CONTEST}
        shown = [name for name in wanted if name in own]
        contests.append((Contest(**first, title=contest_title(rows.iloc[members]), lead=lead, metrics=shown), members))
    return contests


def _rows(
    board: Board,
    rows: pd.DataFrame,
    columns: Sequence[MetricColumn],
    contests: Sequence[np.ndarray],
    number: dict[int, int],
) -> list[Row]:
    contest_of = np.full(len(rows), -1)
    for index, members in enumerate(contests):
        contest_of[members] = index
    group_of = {group: at for at, group in enumerate(dict.fromkeys(rows["group"]))}
    cells: list[dict[str, Cell]] = [{} for _ in range(len(rows))]
    for column in columns:
        cleared, above_frozen = column.clears_trivial(), column.clears_frozen()
        for at in np.flatnonzero(column.cell >= 0):
            cells[at][column.metric] = _cell(
                board, column, int(at), (bool(cleared[at]), bool(above_frozen[at])), number
            )
    texts = {name: rows[name].tolist() for name in _NAMES}
    apart = told_apart_by(rows)
    for name in _STANDS_ON:  # what was spent is a part of the budget
        texts[_STANDS_ON[name]] = short(name, rows[name]) if name in apart else [""] * len(rows)
    counts = {name: rows[name].tolist() for name in ("seeds", *UNFINISHED)}
    tuned = rows["tuned"].tolist()
    choice = {name: rows[name].tolist() for name in CHOICE if name in rows}
    return [
        Row(
            contest=int(contest_of[at]),
            group=group_of[group],
            **{name: values[at] for name, values in texts.items()},
            tuned=tuned[at],
            **{name: values[at] for name, values in counts.items()},
            cells=cells[at],
            **{name: values[at] for name, values in choice.items()},
        )
        for at, group in enumerate(rows["group"])
    ]


def _cell(board: Board, column: MetricColumn, at: int, cleared: tuple[bool, bool], number: dict[int, int]) -> Cell:
    part = board.cells.part(int(column.cell[at]))
    known = np.isfinite([column.trivial[at], column.frozen[at]]) & np.isfinite(column.half_width[at])
    return Cell(
        mean=significant(float(column.mean[at])),
        std=significant(float(column.std[at])),
        half=significant(float(column.half_width[at])),
        values=[significant(value) for value in board.cells.values[part].tolist()],
        runs=[number[record] for record in board.cells.runs[part].tolist()],
        rank=int(column.rank[at]),
        ranks=(int(column.rank_best[at]), int(column.rank_worst[at])),
        trivial=significant(float(column.trivial[at])),
        baseline=str(column.baseline[at]),
        clears=cleared[0] if known[0] else None,
        frozen=significant(float(column.frozen[at])),
        frozen_baseline=str(column.frozen_baseline[at]),
        clears_frozen=cleared[1] if known[1] else None,
        apart=str(column.apart[at]),
        interval=str(column.interval[at]),
    )


def _groups(board: Board, rows: pd.DataFrame) -> list[Group]:
    """In the order in which rows meet them."""
    names = ("config_hash", "data_digest", "protocol", "dataset", "task", *_STANDS_ON)
    return [
        Group(board.config(int(group)), **{name: str(board.runs.groups[name][group]) for name in names})
        for group in dict.fromkeys(rows["group"])
    ]


def _published(lines: Sequence[Beside]) -> list[Beside]:
    return [
        replace(
            line,
            measured=_short(line.measured),
            half_width=None if line.half_width is None else _short(line.half_width),
            published=_short(line.published),
            low=_short(line.low),
            high=_short(line.high),
            difference=None if line.difference is None else _short(line.difference),
        )
        for line in lines
    ]


def _short(value: float) -> float:
    return float(f"{value:.7g}")
