"""What changed between two leaderboards: two commits, two machines, two tunings; and one set of rows against another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.leaderboard import unrecorded
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.compare_notes import notes_of
from subnetbench.harness.leaderboard.compare_settings import Settings
from subnetbench.harness.leaderboard.frames import View, check_splits, filtered, view_of
from subnetbench.harness.leaderboard.keys import higher_is_better
from subnetbench.harness.leaderboard.losses import failures_of, missing_of, unfinished, with_counts
from subnetbench.harness.leaderboard.matching import Matches, Side, match, match_sets
from subnetbench.harness.leaderboard.row_tests import judge, lines_of

__all__ = ["Differences", "Settings", "compare"]


_OF_FAILED = ("task", "dataset", "method", "network", "config")


@dataclass(frozen=True)
class Differences:
    """The result of `compare`.

    `rows` has one line for each compared row and metric: the columns of `NAME`, `config`, `metric`, `a` and `b`
    (means over the seeds of the difference), `a_all_seeds` and `b_all_seeds` (means over all finished seeds),
    `difference` (b - a) with its interval `low` and `high`, `seeds_a`, `seeds_b`, `failed_a`, `failed_b` (runs),
    `unrecorded_b` (runs of b that left no record that counts, in words; they are counted in `failed_b`),
    `pairs` (seeds that match), `lost` (seeds of a whose runs in b gave no value), `test`, `pair` (over
    what: `seeds`, `items` or `joint`), `no_items` (why not by item, where that was wanted), `p`, `p_corrected`,
    `verdict`, `detectable` (the true difference that this many pairs find with 80 % power, at the observed spread and
    without correction), `run_ids_a`, `run_ids_b`. Where two sets of rows are compared, the columns are those of the
    row of a, and those of the row of b are there with `_b` (`method_b`).

    `only_a` and `only_b` hold the rows without a counterpart, with finished (`seeds_a`, `seeds_b`) and failed runs
    of both sides and the `reason`. `missing` has what fails the comparison: the rows of a that are not compared, and
    those with lost seeds; of sets also the configs of which no run finished. `failed` lists all configs of either `side` of which runs failed.
    """

    rows: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    notes: list[str]
    missing: pd.DataFrame
    failed: pd.DataFrame
    allow_missing: bool = False
    fail_on: Sequence[str] = ("worse", "missing")
    margin: float = 0.0

    def frame(self) -> pd.DataFrame:
        """The compared rows as a tidy frame of its own."""
        return self.rows.copy()

    @property
    def of_sets(self) -> bool:
        """Whether two sets of rows were compared."""
        return "method_b" in self.rows

    @property
    def exit_status(self) -> int:
        """1 if anything that `fail_on` names is there, else 0."""
        broken = self.broken()
        missing = "missing" in self.fail_on and len(self.missing) > 0 and not self.allow_missing
        failed = "failed" in self.fail_on and len(self.failed_beside) > 0
        return int(missing or failed or any(broken[kind].any() for kind in self.fail_on if kind in broken))

    @property
    def failed_beside(self) -> pd.DataFrame:
        """Those of `failed` on side b that no compared row counts: all their runs failed, or a has no such row."""
        suffix = "_b" if self.of_sets else ""
        counted = self.rows[self.rows["failed_b"] > 0]
        columns = [counted[name + suffix if name + suffix in counted else name] for name in _OF_FAILED]
        known = set(zip(*columns, strict=True))
        ours = self.failed[self.failed["side"] == "b"]
        own = zip(*(ours[name] for name in _OF_FAILED), strict=True)
        return ours[np.array([names not in known for names in own], bool)]

    def broken(self) -> dict[str, np.ndarray]:
        """For each word of `FAIL_ON` but `missing`, which of `rows` are such; (rows,)."""
        rows = self.rows
        better = [higher_is_better(metric) for metric in rows["metric"]]
        up = np.array([way is True for way in better], bool)
        loss = np.where(up, -rows["low"], rows["high"])  # the most that may have been lost
        apart = (rows["verdict"] != "identical").to_numpy()
        known = np.array([way is not None for way in better], bool)
        significant = rows["verdict"].isin(["worse beyond margin", "worse", "better", "changed"])
        return {
            "worse": (rows["verdict"] == "worse beyond margin").to_numpy(),
            "changed": significant.to_numpy(),
            "undecided": (rows["verdict"] == "undecidable").to_numpy(),
            "unproven": known & apart & ~(loss <= self.margin),
            "failed": (rows["failed_b"] > 0).to_numpy(),
        }


def compare(
    a: Board | Path | str, b: Board | Path | str | None = None, settings: Settings | None = None
) -> Differences:
    """Compare the rows of `b` with the same rows of `a`, or two sets of rows, with tests corrected for their number.

    Args:
        a: A leaderboard, results folder or record file: before, or that of the first set.
        b: The same: after, or that of the second set; None: the first again, for two sets.
        settings: Which rows and metrics are compared, and how.

    Raises:
        UserError: A path or a name is not known, the two have no primary metric in common, a filter selects nothing,
            or none of the selected rows can be compared.

    Example:
        >>> from subnetbench.harness.leaderboard import Settings, compare
        >>> old = "tests/data/version_0_1"
        >>> differences = compare(old, old, Settings(metrics=["top1"], margin=0.01))
        >>> differences.rows[["method", "verdict"]].to_dict("records")
        [{'method': 'edge_popup', 'verdict': 'identical'}]
        >>> differences.exit_status
        0
    """
    settings = settings or Settings()
    if b is None and not settings.of_sets:
        raise UserError("name a second leaderboard, or filters for two sets of rows: a and b")
    board_a = a if isinstance(a, Board) else Board(a)
    board_b = board_a if b is None or b == a else b if isinstance(b, Board) else Board(b)
    check_splits((board_a, board_b), settings.splits)
    metrics = _metrics(board_a, board_b, settings)
    before, after = _side(board_a, metrics, settings, "a"), _side(board_b, metrics, settings, "b")
    if settings.of_sets:
        matches = match_sets(before, after, settings.across, settings.match)
    else:
        matches = match(before, after, settings.across)
    return _differences(before, after, matches, metrics, settings)


def _differences(a: Side, b: Side, matches: Matches, metrics: Sequence[str], settings: Settings) -> Differences:
    tested = [lines_of(a, b, (matches.a, matches.b), name, settings) for name in metrics]
    rows = judge(pd.concat([lines for lines, _ in tested], ignore_index=True), settings)
    only_a = with_counts(matches.only_a, a, b, "a", of_sets=settings.of_sets)
    only_b = with_counts(matches.only_b, b, a, "b", of_sets=settings.of_sets)
    sides = [("a", a), ("b", b)]
    failed = failures_of(sides)
    bare = unfinished(sides) if settings.of_sets else ()
    return Differences(
        rows=rows,
        only_a=only_a,
        only_b=only_b,
        notes=[*_left_out(sides), *matches.notes, *notes_of(rows, failed, settings)],
        missing=missing_of(only_a, [absent for _, absent in tested], rows, bare),
        failed=failed,
        allow_missing=settings.allow_missing,
        fail_on=tuple(settings.fail_on),
        margin=settings.margin,
    )


def _left_out(sides: Sequence[tuple[str, Side]]) -> Iterator[str]:
    """What was not read on each side; once where both are of one board."""
    boards = {name: side.board for name, side in sides}
    if boards["a"] is boards["b"]:
        yield from _lines(boards["a"])
        return
    for name, board in boards.items():
        for line in _lines(board):
            yield line if line.startswith(" ") else f"In {name}: {line}"


def _lines(board: Board) -> list[str]:
    return [*board.records.left_out(), *unrecorded.notes_of(board.without_record)]


def _metrics(a: Board, b: Board, settings: Settings) -> list[str]:
    """The metrics that are compared; by default the primary ones. One that only a side without any results lacks is
    one of them: all its rows are missing there."""
    if settings.metrics:
        known = {*a.metrics, *b.metrics}
        for name in settings.metrics:
            if name not in known:
                raise unknown("metric", name, known)
        return list(dict.fromkeys(settings.metrics))
    names = {name for board in (a, b) for name in board.records.runs["primary_metric"].unique().to_pylist()}
    both = {name for name in names if name in a.metrics and name in b.metrics}
    failed = any(len(board.runs) and not board.runs.finished.any() for board in (a, b))
    if not both and not failed:
        raise UserError("the two leaderboards have no primary metric in common", field="metrics")
    return sorted(name for name in names if name in a.metrics or name in b.metrics)


def _side(board: Board, metrics: Sequence[str], settings: Settings, name: str) -> Side:
    """The chosen rows of one side; a filter for it must select some."""
    splits = None if settings.splits is None else [name for name in settings.splits if name in set(board.rows["split"])]
    view = View([metric for metric in metrics if metric in board.metrics], settings.where, splits)
    rows, _ = view_of(board, view)
    where = settings.a if name == "a" else settings.b
    if where is not None:
        try:
            rows = filtered(board, rows, where)
        except UserError as error:
            raise UserError(str(error).removeprefix("where: "), field=name) from error
        if rows.empty:
            methods = ", ".join(sorted(set(board.rows["method"]))) or "none"
            raise UserError(f"no row meets this filter (methods there: {methods})", field=name, value=where)
    return Side(board, rows.reset_index(drop=True))
