"""What changed between two leaderboards: two commits, two machines, two tunings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from subnetbench.harness import statistics
from subnetbench.harness.errors import UserError
from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.board import Leaderboard, higher_is_better
from subnetbench.harness.leaderboard.frames import View, view_of

NAME = ("task", "dataset", "method", "network", "split", "variant", "gallery_variant")
"""Rows of the two sides are the same thing when they agree in these and in their config."""
FIXED = ("protocol", "data_digest", "schema_meaning")
"""Rows that differ in these are never compared."""
ALLOWABLE = ("budget", "preset", "tuned")
"""Rows that differ in these are compared only when that is asked for."""

Verdict = Literal["better", "worse", "worse beyond margin", "no difference found", "undecidable", "identical"]


@dataclass(frozen=True)
class Settings:
    """How a comparison is made.

    `test` is the test for rows with matching seeds; others get Welch's t test. `confidence` is that of the
    intervals, and 1 - `confidence` the level of the whole family of tests, by Holm's correction. `margin` is how
    much worse, in the unit of the metric, is still acceptable. `across` names columns out of `ALLOWABLE` in which
    the two sides may differ. `splits` and `where` choose rows as in `View`.
    """

    metrics: Sequence[str] | None = None
    where: str | None = None
    splits: Sequence[str] | None = ("test",)
    test: statistics.TestName = "t"
    confidence: float = 0.95
    margin: float = 0.0
    across: Sequence[str] = ()


@dataclass(frozen=True)
class Differences:
    """The result of `compare`.

    `rows` has one line for each compared row and metric: `NAME`, `config`, `metric`, `a`, `b` (means), `difference`
    (b - a), `low`, `high`, `pairs` (seeds that match), `seeds_a`, `seeds_b`, `test`, `p`, `p_corrected`, `verdict`,
    `detectable` (the least true difference that this many seeds find with 80 % power, at the observed spread),
    `run_ids_a`, `run_ids_b`. `only_a` and `only_b` hold the rows that have no counterpart, with a `reason`.
    """

    rows: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    notes: list[str]
    settings: Settings

    @property
    def exit_status(self) -> int:
        """1 if a row is significantly worse by more than the margin, else 0."""
        return int((self.rows["verdict"] == "worse beyond margin").any())


def compare(a: Leaderboard, b: Leaderboard, settings: Settings | None = None) -> Differences:
    """Compare the rows of `b` with the same rows of `a`, metric by metric.

    A row is matched by its config; where that changed and there is one candidate on either side, by its name
    alone, and a note says what changed. Without `metrics`, the primary metrics of both sides are compared.
    """
    settings = settings or Settings()
    if strange := sorted(set(settings.across) - set(ALLOWABLE)):
        raise UserError("cannot be compared across", field="across", value=strange[0], allowed=", ".join(ALLOWABLE))
    if settings.margin < 0:
        raise UserError("must not be negative", field="margin", value=settings.margin)
    metrics = list(settings.metrics) if settings.metrics is not None else _primary(a, b)
    rows = [_rows(board, settings) for board in (a, b)]
    matches, reasons, notes = _match(a, b, rows[0], rows[1], settings)
    lines = [line for name in metrics for line in _compare_metric(a, b, rows[0], rows[1], matches, name, settings)]
    frame = _judge(pd.DataFrame(lines, columns=list(_LINE)), settings)
    matched = [{pair[side] for pair in matches} for side in (0, 1)]
    only = [_only(part, matched[side], reasons[side]) for side, part in enumerate(rows)]
    return Differences(frame, only[0], only[1], [*notes, *_how(frame, settings)], settings)


def _primary(a: Leaderboard, b: Leaderboard) -> list[str]:
    names = [name for board in (a, b) for name in board.records.runs["primary_metric"].unique().to_pylist()]
    return [name for name in dict.fromkeys(sorted(names)) if name in a.metrics and name in b.metrics]


def _rows(board: Leaderboard, settings: Settings) -> pd.DataFrame:
    rows, _ = view_of(board, View([], settings.where, settings.splits))
    return rows[rows["split"] != ""].reset_index(drop=True)


def _match(
    a: Leaderboard, b: Leaderboard, rows_a: pd.DataFrame, rows_b: pd.DataFrame, settings: Settings
) -> tuple[list[tuple[int, int]], list[dict[int, str]], list[str]]:
    """Pairs of places in the two frames, for each side why a place has no partner, and notes."""
    guards = [*FIXED, *(name for name in ALLOWABLE if name not in settings.across)]
    pairs: list[tuple[int, int]] = []
    notes: list[str] = []
    for keys in ([*NAME, *guards, "config_hash"], [*NAME, *guards]):
        taken = [{pair[side] for pair in pairs} for side in (0, 1)]
        left_a = rows_a[~rows_a.index.isin(taken[0])].assign(at_a=lambda frame: frame.index)
        left_b = rows_b[~rows_b.index.isin(taken[1])].assign(at_b=lambda frame: frame.index)
        left_a, left_b = (frame[~frame.duplicated(keys, keep=False)] for frame in (left_a, left_b))
        found = left_a[[*keys, "at_a"]].merge(left_b[[*keys, "at_b"]], on=keys)[["at_a", "at_b"]]
        new = list(zip(found["at_a"].tolist(), found["at_b"].tolist(), strict=True))
        if "config_hash" not in keys:
            notes += _changed(a, b, rows_a, rows_b, new)
        pairs += new
    taken = [{pair[side] for pair in pairs} for side in (0, 1)]
    reasons = [
        _reasons(rows_a, rows_b, taken[0], guards),
        _reasons(rows_b, rows_a, taken[1], guards),
    ]
    return sorted(pairs), reasons, notes


def _changed(
    a: Leaderboard, b: Leaderboard, rows_a: pd.DataFrame, rows_b: pd.DataFrame, pairs: list[tuple[int, int]]
) -> list[str]:
    """What changed in the config of rows that are matched by name."""
    notes = {}
    for at_a, at_b in pairs:
        row = rows_a.iloc[at_a]
        before, after = a.config(row["group"]), b.config(rows_b["group"].iloc[at_b])
        paths = configs.differing([before, after])
        changes = ", ".join(f"{path.removeprefix('config.')}: {before.get(path)} -> {after.get(path)}" for path in paths)
        notes[f"{row['method']} on {row['dataset']} is compared although its config changed: {changes}."] = None
    return list(notes)


def _reasons(rows: pd.DataFrame, others: pd.DataFrame, taken: set[int], guards: list[str]) -> dict[int, str]:
    """For each place without a partner, what its nearest namesakes on the other side differ in."""
    namesakes = others.groupby(list(NAME)).indices
    reasons = {}
    for at in set(range(len(rows))) - taken:
        row = rows.iloc[at]
        candidates = namesakes.get(tuple(row[name] for name in NAME))
        if candidates is None:
            reasons[at] = "no such row on the other side"
            continue
        differing = [[name for name in guards if row[name] != others[name].iloc[i]] for i in candidates]
        fewest = min(differing, key=len)
        reasons[at] = f"differs in {', '.join(fewest)}" if fewest else "several configs, none of them the same"
    return reasons


def _compare_metric(
    boards: tuple[Leaderboard, Leaderboard],
    rows: Sequence[pd.DataFrame],
    pairs: list[tuple[int, int]],
    metric: str,
    settings: Settings,
) -> pd.DataFrame:
    """One line for each pair of rows that both have this metric."""
    cells = [
        board.cell_of(part, metric)[[pair[side] for pair in pairs] or np.zeros(0, np.int64)]
        for side, (board, part) in enumerate(zip(boards, rows, strict=True))
    ]
    both = np.flatnonzero((cells[0] >= 0) & (cells[1] >= 0))
    before, after = _aligned(boards, cells[0][both], cells[1][both])
    lines = rows[0].iloc[[pairs[i][0] for i in both]][[*NAME, "config"]].reset_index(drop=True)
    lines["metric"] = metric
    for name, board, cell in zip("ab", boards, cells, strict=True):
        lines[name] = board.cells.mean[cell[both]]
        lines[f"seeds_{name}"] = board.cells.count[cell[both]]
        lines[f"run_ids_{name}"] = [tuple(board.run_ids[board.cells.runs[board.cells.part(c)]]) for c in cell[both]]
    differences = after - before
    lines["pairs"] = np.count_nonzero(~np.isnan(differences), axis=1)
    lines["identical"] = [_same(x, y) for x, y in zip(before, after, strict=True)]
    lines["detectable"] = _detectable(differences, settings)
    # Tests that are worse by more than the margin are those that are still worse with the margin taken off.
    grace = settings.margin * (1 if higher_is_better(metric) is not False else -1)
    tests = _tests(before, after, settings).merge(_tests(before, after + grace, settings), ...)
    return lines
