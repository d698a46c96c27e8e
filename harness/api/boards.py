"""What can be read from records: the leaderboard, comparisons, matrices, curves. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from subnetbench.harness.api.lookup import Paths, existing, record_files_of
from subnetbench.harness.core.errors import UserError, check_at_least
from subnetbench.harness.core.statistics import TestName
from subnetbench.harness.leaderboard.beside import Beside, beside
from subnetbench.harness.leaderboard.compare import Differences, Settings
from subnetbench.harness.leaderboard.compare import compare as compare_boards
from subnetbench.harness.leaderboard.curves import Line, curves
from subnetbench.harness.leaderboard.formats import render, render_frame, write, write_frame
from subnetbench.harness.leaderboard.frames import View, tidy, view_of
from subnetbench.harness.leaderboard.gate import write_gate
from subnetbench.harness.leaderboard.item_intervals import IntervalKind
from subnetbench.harness.leaderboard.keys import COSTS
from subnetbench.harness.leaderboard.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.matrix import Matrix, matrices
from subnetbench.harness.leaderboard.matrix import draw as draw_matrices
from subnetbench.harness.leaderboard.published import PublishedValue, load_published
from subnetbench.harness.leaderboard.trace import trace
from subnetbench.harness.records.merge import Merged
from subnetbench.harness.records.merge import merge as merge_records
from subnetbench.harness.records.read import read_records
from subnetbench.harness.report.curves import draw_lines


@dataclass(frozen=True)
class BoardView:
    """A leaderboard with the rows and columns that were chosen.

    `board` has all that was read; `view` says what is shown of it; `published` are values that papers print.
    """

    board: Leaderboard
    view: View
    published: Sequence[PublishedValue] = ()

    @property
    def beside(self) -> list[Beside]:
        """Published values of the same things as the rows shown: comparable ones first, others with the reason."""
        rows, columns = view_of(self.board, self.view)
        return beside(self.board, rows, [column.metric for column in columns], self.published).lines

    @property
    def frame(self) -> pd.DataFrame:
        """One line for each row and metric; the columns are those of `Leaderboard.frame`."""
        return tidy(self.board, self.view)

    def text(self, format: str = "terminal", width: int = 120) -> str:
        """Tables for people: `terminal` (at most `width` characters wide), `markdown`, `latex`; or `csv`, `json`."""
        return render(self.board, format, self.view, self.published, width=width)

    def write(self, path: Path | str) -> None:
        """Write to a file whose suffix says the format: .parquet, .csv, .json, .md, .tex or .txt."""
        write(self.board, path, self.view, self.published)


@dataclass(frozen=True)
class Sources:
    """The runs behind each value of a leaderboard.

    `frame` has one line for each value: its row, `metric`, `value`, `file`, commit, data digest and the `command`
    that makes the run again.
    """

    frame: pd.DataFrame

    def text(self, format: str = "terminal", width: int = 120) -> str:
        """The frame in one of the formats of `BoardView.text`; a terminal shows no commands, ids or times."""
        if format != "terminal":
            return render_frame(self.frame, format)
        return render_frame(self.frame.drop(columns=["command", "record_id", "finished_at"]), format, width)

    def write(self, path: Path | str) -> None:
        """Write to a file whose suffix says the format."""
        write_frame(self.frame, path)


def leaderboard(
    folders: Paths,
    *,
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    sort: Sequence[str] = (),
    splits: Sequence[str] | None = ("test",),
    select: Literal["validation"] | None = None,
    within: Sequence[str] = (),
    trials: bool = False,
    confidence: float = 0.95,
    interval: IntervalKind = "joint",
    by: Literal["machine"] | None = None,
    std: bool = False,
    limit: int | None = 500,
    published: bool = False,
    from_memory: bool = False,
) -> BoardView:
    """Compare what was measured: mean and interval over seeds, rank, costs, trivial baselines.

    Args:
        folders: Results folders or record files, of any number of machines.
        metrics: Metrics to show, in this order; None: those that rank the tasks, and the costs.
        where: Filter of rows, such as `sparsity >= 0.8 and method != 'dense'`.
        sort: Columns or metrics, `-` before a name for descending; by default by rank.
        splits: Splits to show; None: all.
        select: `validation`: of each method the config that is best on validation, and of how many it was chosen.
        within: Columns; each value gets a table and ranks of its own.
        trials: Show the trials of searches too.
        confidence: Confidence of the intervals, between 0 and 1.
        interval: Over `seeds`, `items` (these runs, other test items), or `joint`: both, where outcomes by item are stored.
        by: `machine`: a row for each machine (whatever times depend on), so that times have a mean.
        std: Tables show standard deviations beside intervals.
        limit: Most rows of each table; None: all. Frames and data files are never cut.
        published: Set values that papers print beside measured ones, where they are comparable; else say why not.
        from_memory: Also published values that were entered from memory, not read anywhere; implies `published`.

    Raises:
        UserError: A folder does not exist, or a metric, column or filter cannot be used.

    Example:
        >>> from subnetbench.harness import api
        >>> board = api.leaderboard("results/quickstart", metrics=["top1"], where="method == 'edge_popup'")
        >>> board.frame[["method", "variant", "metric", "seeds"]].values.tolist()
        [['edge_popup', 'subnetwork', 'top1', 1]]
    """
    check_at_least("limit", limit, 1)
    board = _board(existing(folders), trials, confidence, interval, by)
    view = View(metrics, where, splits, tuple(sort), tuple(within), select, std, limit)
    return BoardView(board, view, load_published(from_memory=from_memory) if published or from_memory else ())


def _board(folders: Paths, trials: bool, confidence: float, interval: IntervalKind, by: str | None) -> Leaderboard:
    if by not in (None, "machine"):
        raise UserError("no such division of rows", field="by", value=by, allowed="machine")
    return Leaderboard(folders, trials=trials, confidence=confidence, interval=interval, by_machine=by is not None)


def sources(
    folders: Paths,
    *,
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    sort: Sequence[str] = (),
    splits: Sequence[str] | None = ("test",),
    select: Literal["validation"] | None = None,
    within: Sequence[str] = (),
    trials: bool = False,
) -> Sources:
    """The runs behind each value of a leaderboard: value, file, commit, data, and the command that makes it again.

    The arguments are those of `leaderboard`; without `metrics` no costs are traced.

    Raises:
        UserError: A folder does not exist, or a metric, column or filter cannot be used.

    Example:
        >>> from subnetbench.harness import api
        >>> found = api.sources("results/quickstart", metrics=["top1"])
        >>> found.frame["command"].iloc[0].split()[:3]
        ['subnetbench', 'run', 'edge_popup']
    """
    records = read_records(existing(folders))
    records.warn()
    board = Leaderboard.from_records(records, trials=trials)
    view = View(metrics, where, splits, tuple(sort), tuple(within), select)
    if metrics is None:
        view = replace(view, metrics=[name for name in board.default_metrics if name not in COSTS])
    return Sources(trace(board, view))


def compare(
    before: Leaderboard | Path | str,
    after: Leaderboard | Path | str | None = None,
    /,
    *,
    a: str | None = None,
    b: str | None = None,
    match: Sequence[str] = (),
    allow_missing: bool = False,
    against: Leaderboard | Path | str | None = None,
    fail_on: Sequence[str] = ("worse", "missing"),
    markdown: Path | str | None = None,
    junit: Path | str | None = None,
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    splits: Sequence[str] | None = ("test",),
    test: TestName = "t",
    pair: IntervalKind | None = None,
    margin: float = 0.0,
    across: Sequence[str] = (),
    confidence: float = 0.95,
) -> Differences:
    """What changed from one leaderboard to another, or how one set of rows differs from another.

    Args:
        before: Results folder, record file or leaderboard.
        after: The same; None with `a` and `b`: the same folder.
        a: Filter of rows of `before`; each is compared with each row that meets `b`. None: each row with itself.
        b: Filter of rows of `after`; both filters or none.
        match: Columns, metrics or config fields in which rows of `a` and `b` must agree.
        allow_missing: Rows that vanished or lost seeds to failures leave `exit_status` as it is.
        against: The reference, instead of a second folder: `compare(new, against=old)` is `compare(old, new)`.
        fail_on: What makes `exit_status` 1: `worse` (beyond the margin), `missing`, `changed`, `undecided`, `unproven` (a loss
            of more than the margin is not excluded), `failed` (runs of the second side).
        markdown: Write a summary to this Markdown file as well.
        junit: Write each compared row as a test case to this JUnit XML file as well.
        metrics: Metrics to compare; None: the primary metrics.
        where: Filter of all rows, as for `leaderboard`.
        splits: Splits to compare; None: all.
        test: Test of rows with at least two matching seeds: `t`, `sign_flip` or `wilcoxon`.
        pair: Over what differences are tested: `seeds`, `items`, `joint`; None: `joint` for sets, `seeds` for two folders.
        margin: How much worse is acceptable, in the metric's unit.
        across: Columns in which the two sides may differ, e.g. `tuned`.
        confidence: Confidence of the intervals; 1 - `confidence` is the level of the family of tests.

    Returns:
        The rows with a verdict each; `exit_status` is 1 when anything that `fail_on` names is there.

    Raises:
        UserError: A folder does not exist, an option cannot be used, or nothing can be compared.

    Example:
        >>> from subnetbench import compare
        >>> compare("results/quickstart", "results/quickstart").rows["verdict"].tolist()
        ['identical']
    """
    if against is not None:
        if after is not None:
            raise UserError("give a second folder or a reference, not both", field="against", value=str(against))
        before, after = against, before
    for side in (before, after):
        if isinstance(side, Path | str):
            existing(side)
    settings = Settings(
        *(metrics, where, splits, test, confidence, margin, across, a, b, match),
        allow_missing=allow_missing,
        fail_on=tuple(fail_on),
        pair=pair,
    )
    differences = compare_boards(before, after, settings)
    write_gate(differences, markdown, junit)
    return differences


def matrix(
    runs: Paths,
    *,
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    split: str = "test",
    draw: Path | str | None = None,
) -> list[Matrix]:
    """Query network x gallery network: self-tests on the diagonal, cross-tests off it, mean over seeds.

    Args:
        runs: Results folders, record files, run folders, or (the beginning of) run ids in any folder of `results/`.
        metrics: Metrics; None: mean average precision and recall at 1.
        where: Filter of rows, as for `leaderboard`.
        split: The split that was scored.
        draw: Draw heat maps into this .png, .svg or .pdf file as well.

    Returns:
        One matrix for each config and metric.

    Raises:
        UserError: There is no such run, or none in which networks were tested against each other.

    Example:
        >>> from subnetbench.harness import api
        >>> (found,) = api.matrix("results/retrieval", metrics=["map"])
        >>> found.names, found.mean.shape
        (('dense', 'capacity_0.6', 'capacity_0.2'), (3, 3))
    """
    names = [str(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    found = matrices([path for name in names for path in record_files_of(name)], metrics, where=where, split=split)
    if draw is not None:
        draw_matrices(found, Path(draw))
    return found


def curve(
    folders: Paths,
    against: str,
    *,
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    split: str = "test",
    draw: Path | str | None = None,
    confidence: float = 0.95,
) -> list[Line]:
    """How metrics change with one number of the config, all else equal: a line a variant, mean over seeds.

    Args:
        folders: Results folders or record files.
        against: Config field with a number, of the runs or of the runs they start from.
        metrics: Metrics; None: the first that ranks a task.
        where: Filter of rows, as for `leaderboard`.
        split: The split that was scored.
        draw: Draw into this .png, .svg, .pdf or .pgf (LaTeX) file as well.
        confidence: Confidence of the intervals, between 0 and 1.

    Returns:
        One line for each metric, variant and setting of everything else.

    Raises:
        UserError: A folder does not exist, nothing varies with the field, or it is ambiguous.

    Example:
        >>> from subnetbench.harness import api
        >>> [line.values.tolist() for line in api.curve("results/small", "sparsity", where="variant == 'subnetwork'")]
        [[0.5, 0.8]]
    """
    lines = curves(existing(folders), against, metrics, where=where, split=split, confidence=confidence)
    if draw is not None:
        draw_lines(lines, against, Path(draw))
    return lines


def merge(folders: Paths, out: Path | str | None = None) -> list[Merged]:
    """Compact the record files of folders into one each; both stay readable throughout.

    Args:
        folders: Results folders.
        out: One file for all; nothing is removed then.

    Returns:
        What was written, with the files that were removed, those that could not be read, and the faults of records that
        are not valid and therefore were not merged.

    Raises:
        UserError: A folder does not exist.

    Example:
        >>> from subnetbench.harness import api
        >>> (merged,) = api.merge(["results/quickstart", "results/small"], out="all.parquet")
        >>> merged.records
        3
    """
    return merge_records(existing(folders), out)
