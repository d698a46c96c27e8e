"""Claims tested on records: whether each holds, is contradicted, or cannot be decided, and with which power."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from subnetbench.harness.core import statistics
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import depends_on_machine
from subnetbench.harness.leaderboard.baselines import best_baselines
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.claim_file import TRIVIAL, Claim, Claims, Statement, Term
from subnetbench.harness.leaderboard.claim_power import Estimate, decide, effect_found, power_of
from subnetbench.harness.leaderboard.code_versions import candidates
from subnetbench.harness.leaderboard.frames import filtered
from subnetbench.harness.leaderboard.item_tests import item_error
from subnetbench.harness.leaderboard.losses import unsuccessful
from subnetbench.harness.leaderboard.matching import NAME, Side, match_sets

Status = Literal["holds", "contradicted", "undecided", "no runs", "ambiguous", "not comparable"]
WANTED_POWER = 0.8
SAME_ROW = "both sides are the same row"
_WORST_FIRST: tuple[Status, ...] = ("contradicted", "undecided", "holds")


@dataclass(frozen=True)
class Part:
    """One test of a claim: a row, or two rows of the left and the right side.

    `measured` is left - right (or left alone), with its interval `low` and `high` at a confidence that holds for all claims
    of the file together: over seeds and test items (`interval` is `joint`), or over seeds alone. `power` is the chance that as many seeds with this spread bear the claim out if the truth lies
    `effect` beyond the threshold (for `==`: if it is the threshold); `measured_effect` says that no effect was stated and
    the measured one was taken. `detectable` is the effect with 80 % power. NaN where there is no interval.
    """

    status: Status
    measured: float
    low: float
    high: float
    threshold: float
    left: str
    right: str
    left_mean: float
    right_mean: float
    seeds_left: int
    seeds_right: int
    pairs: int
    failed_left: int
    failed_right: int
    test: str
    interval: Literal["seeds", "joint"]
    power: float
    effect: float
    measured_effect: bool
    detectable: float
    run_ids_left: tuple[str, ...]
    run_ids_right: tuple[str, ...]

    @property
    def underpowered(self) -> bool:
        """Whether it was left open by seeds that would hardly have borne it out."""
        return self.status == "undecided" and not self.power >= WANTED_POWER


@dataclass(frozen=True)
class Result:
    """What became of a claim: `status` with the `reason`, and its `parts` (several where it must hold for each of several pairs)."""

    claim: str
    says: str
    line: int
    status: Status
    reason: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A claim with the rows that it is about: pairs of indices into the rows of both sides (right: -1 without rows)."""

    claim: Claim
    line: int
    left: Side
    right: Side | None
    pairs: list[tuple[int, int]] = field(default_factory=list)
    status: Status | None = None
    reason: str = ""


def check_claims(claims: Claims, board: Board) -> list[Result]:
    """Test each claim of a file on the rows of a leaderboard.

    Raises:
        UserError: A filter or a name in a claim cannot be used; the message names the file and the line.
    """
    found = [_find(claims, at, board) for at in range(len(claims.content.claims))]
    tests = max(sum(len(each.pairs) for each in found), 1)
    level = (1 - claims.content.confidence) / tests
    joint = claims.content.interval == "joint"
    return [_result(each, board, level, joint=joint) for each in found]


def _find(claims: Claims, at: int, board: Board) -> _Found:
    claim, line = claims.content.claims[at], claims.lines[at]
    statement = claim.statement
    try:
        left = _side(board, claim, statement, statement.left, claim.a)
        right = None
        if statement.right is not None and statement.right.method != TRIVIAL:
            right = _side(board, claim, statement, statement.right, claim.b)
        return _matched(_Found(claim, line, left, right), statement)
    except UserError as error:
        raise UserError(f"{error}", field=f"{claims.path} line {line}: claims[{at}]") from None


def _side(board: Board, claim: Claim, statement: Statement, term: Term, own: str | None) -> Side:
    rows = board.rows
    chosen = (rows["method"] == term.method) & (rows["dataset"] == statement.dataset) & (rows["split"] == claim.split)
    for name in ("variant", "gallery_variant"):
        if value := getattr(term, name):
            chosen &= rows[name] == value
    rows = rows[chosen]
    for where in (claim.where, own):
        if where is not None and len(rows):
            rows = filtered(board, rows, where)
    rows = rows[board.cell_of(rows, statement.metric) >= 0].reset_index(drop=True)
    return Side(board, candidates(board, rows).latest.drop(columns="at").reset_index(drop=True) if len(rows) else rows)


def _matched(found: _Found, statement: Statement) -> _Found:
    claim, left, right = found.claim, found.left, found.right
    for side, term in ((left, statement.left), (right, statement.right)):
        if side is not None and term is not None and not len(side.rows):
            reason = (
                f"no finished run of {term.method} on {statement.dataset} with {statement.metric} meets its filters"
            )
            return _Found(claim, found.line, left, right, status="no runs", reason=reason)
    if right is None:
        if statement.right is not None and np.isnan(best_baselines(left.board, left.rows, statement.metric)[0]).any():
            reason = f"no trivial baseline of {statement.metric} is recorded for this data"
            return _Found(claim, found.line, left, right, status="no runs", reason=reason)
        pairs = [(at, -1) for at in range(len(left.rows))]
    else:
        try:
            matches = match_sets(left, right, claim.across, claim.match)
        except UserError as error:
            if error.field != "b":
                raise
            reason = str(error).partition(": ")[2] or str(error)
            return _Found(claim, found.line, left, right, status="not comparable", reason=reason)
        pairs = list(zip(matches.a.tolist(), matches.b.tolist(), strict=True))
    if reason := _of_other_machines(found, statement, pairs):
        return _Found(claim, found.line, left, right, status="not comparable", reason=reason)
    if not pairs:  # match_sets raises where nothing fits, except for a row beside itself
        return _Found(claim, found.line, left, right, status="not comparable", reason=SAME_ROW)
    if len(pairs) > 1 and not claim.match:
        sides = [left.rows] if right is None else [left.rows, right.rows]
        names = "; ".join(word for rows in sides if (word := _differing(rows)))
        reason = f"{len(pairs):,} {'rows' if right is None else 'pairs of rows'} fit: filter them, or `match` ({names})"
        return _Found(claim, found.line, left, right, status="ambiguous", reason=reason)
    return _Found(claim, found.line, left, right, pairs)


def _of_other_machines(found: _Found, statement: Statement, pairs: list[tuple[int, int]]) -> str:
    """In what the machines differ on which a time was measured; empty for what does not depend on them."""
    if not depends_on_machine(statement.metric):
        return ""
    board = found.left.board
    sides = [side for side in (found.left, found.right) if side is not None]
    cells = {int(board.cell_of(side.rows, statement.metric)[pair[i]]) for pair in pairs for i, side in enumerate(sides)}
    runs = np.concatenate([board.cells.runs[board.cells.part(cell)] for cell in cells] or [np.zeros(0, np.int64)])
    differ = board.machines.differing(np.zeros(len(runs), np.int64), runs, 1)
    names = [name for name, several in differ.items() if several[0]]
    return f"times of other machines are not compared: {', '.join(names)}" if names else ""


def _differing(rows: pd.DataFrame) -> str:
    """In what the rows of one side differ, with a few values."""
    if len(rows) < 2:
        return ""
    names = [n for n in (*NAME, "config", "budget", "preset", "tuned", "data_digest") if rows[n].nunique() > 1]
    words = [f"{name}: {', '.join(map(str, list(dict.fromkeys(rows[name]))[:4]))}" for name in names]
    return f"{rows['method'].iloc[0]} differs in {'; '.join(words) or 'what it stands on'}"


def _result(found: _Found, board: Board, level: float, *, joint: bool) -> Result:
    claim = found.claim
    plain = Result(claim.claim, claim.says, found.line, found.status or "undecided", found.reason)
    if found.status is not None:
        return plain
    parts = [_part(found, pair, board, level, joint=joint) for pair in found.pairs]
    status = next(name for name in _WORST_FIRST if any(part.status == name for part in parts))
    reasons = dict.fromkeys(reason for part in parts for reason in _reasons(part))
    return replace(plain, status=status, reason="; ".join(reasons), parts=tuple(parts))


def _reasons(part: Part) -> Iterator[str]:
    if part.status == "undecided" and np.isnan(part.low):
        several = min(part.seeds_left, part.seeds_right or part.seeds_left) > 1
        yield (
            "all seeds give the same, and the records do not say over how many items: no spread is known"
            if several
            else "one seed gives no interval"
        )
    elif part.underpowered:
        of = (
            "the measured difference"
            if part.measured_effect
            else f"a true difference {part.effect:g} beyond the threshold"
        )
        yield f"underpowered: {100 * part.power:.0f} % for {of if part.effect else 'equal means'}"
    for side, failed in (("left", part.failed_left), ("right", part.failed_right)):
        if failed:
            runs = "run" if failed == 1 else "runs"
            yield f"{failed:,} {runs} on the {side} without a result (failed, or no record), which no mean counts"


def _part(found: _Found, pair: tuple[int, int], board: Board, level: float, *, joint: bool) -> Part:
    statement = found.claim.statement
    rows = [found.left.rows.iloc[[pair[0]]], *([] if found.right is None else [found.right.rows.iloc[[pair[1]]]])]
    cells = np.array([board.cell_of(row, statement.metric)[0] for row in rows])
    threshold = statement.threshold
    if statement.right is not None and found.right is None:
        threshold += float(best_baselines(board, rows[0], statement.metric)[0][0])
    estimate, pairs, test = _estimate(board, cells)
    over_items = item_error(board.items.of_cells(statement.metric, cells.tolist()), pairs) if joint else "not asked for"
    if not isinstance(over_items, str):
        estimate = replace(estimate, item_error=over_items[0], item_freedom=over_items[1])
    half = estimate.half_width(level)
    equal = statement.relation == "=="
    effect = 0.0 if equal else found.claim.effect or abs(estimate.value - threshold)
    runs = [*board.runs_of(cells), ()]
    means = [*board.cells.mean[cells].tolist(), threshold]
    failed = [*(int(unsuccessful(board)[row["group"].to_numpy(np.int64)][0]) for row in rows), 0]
    return Part(
        status=decide(statement.relation, threshold, statement.within, estimate, level),
        measured=estimate.value,
        low=estimate.value - half,
        high=estimate.value + half,
        threshold=threshold,
        left=_label(rows[0]),
        right=_label(rows[1]) if len(rows) > 1 else TRIVIAL if statement.right else f"{threshold:g}",
        left_mean=means[0],
        right_mean=means[1],
        seeds_left=len(runs[0]),
        seeds_right=len(runs[1]),
        pairs=pairs,
        failed_left=failed[0],
        failed_right=failed[1],
        test=test,
        interval="seeds" if isinstance(over_items, str) else "joint",
        power=power_of(statement.relation, effect, statement.within, estimate, level),
        effect=effect,
        measured_effect=found.claim.effect is None and not equal,
        detectable=np.nan if equal else effect_found(WANTED_POWER, estimate, level),
        run_ids_left=runs[0],
        run_ids_right=runs[1],
    )


def _estimate(board: Board, cells: np.ndarray) -> tuple[Estimate, int, str]:
    """The mean of one cell, or the difference of two, paired by seed where at least two seeds match; with the number
    of pairs (0: not paired)."""
    _, values = board.seed_matrix(cells)
    floor = statistics.variance_floor(
        np.fmax.reduce(board.steps_of(cells))
    )  # the same items: one side that knows is enough
    if len(cells) == 1:
        return Estimate.of(statistics.paired_errors(values, floor)), 0, "t"
    differences = (values[0] - values[1])[None]
    if (pairs := int(np.isfinite(differences).sum())) >= 2:
        return Estimate.of(statistics.paired_errors(differences, 2 * floor)), pairs, "paired t"
    errors = statistics.welch_errors(values[1][None], values[0][None], (floor, floor))
    return Estimate.of(errors), 0, "Welch t"


def _label(row: pd.DataFrame) -> str:
    one = row.iloc[0]
    variant = " -> ".join(str(one[name]) for name in ("variant", "gallery_variant") if one[name])
    words = [str(one["method"]), f"[{variant}]" if variant else "", str(one["network"]), str(one["config"])]
    return " ".join(word for word in words if word)
