"""Tests of pairs of rows, metric by metric: difference, interval, p, and the verdict after Holm's correction."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from subnetbench.harness.core import statistics
from subnetbench.harness.core.metrics import depends_on_machine
from subnetbench.harness.leaderboard import unrecorded
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.compare_settings import Settings
from subnetbench.harness.leaderboard.item_tests import retest_by_item
from subnetbench.harness.leaderboard.keys import higher_is_better
from subnetbench.harness.leaderboard.losses import lost_seeds, unsuccessful
from subnetbench.harness.leaderboard.matching import ALLOWABLE, NAME, Side

Verdict = Literal[
    "better", "worse", "worse beyond margin", "changed", "no difference found", "undecidable", "identical"
]
VARYING = ("method", "network", "variant", "gallery_variant", "config", *ALLOWABLE)
"""In what rows of two sets may differ."""


def lines_of(
    a: Side, b: Side, pairs: tuple[np.ndarray, np.ndarray], metric: str, settings: Settings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One tested line for each pair of rows that both have this metric, and the pairs that cannot be compared: only a
    has it, or it is a time that was not measured on one machine.

    `pairs` are the indices of the rows in a and in b.
    """
    cell_a, cell_b = (side.board.cell_of(side.rows, metric)[at] for side, at in zip((a, b), pairs, strict=True))
    both, gone = (cell_a >= 0) & (cell_b >= 0), (cell_a >= 0) & (cell_b < 0)
    reasons = np.full(len(both), f"no value of {metric} in b", object)
    if depends_on_machine(metric):
        reasons[both] = _not_on_one_machine(a.board, cell_a[both], b.board, cell_b[both])
        apart = both & (reasons != "")
        both, gone = both & ~apart, gone | apart
    lines = _names(a, b, (pairs[0][both], pairs[1][both]), metric, settings)
    cell_a, cell_b, counted_a = cell_a[both], cell_b[both], a.board.cells.count[cell_a[gone]]
    seeds, before, after = _aligned(a.board, cell_a, b.board, cell_b)
    lines["seeds_a"], lines["seeds_b"] = a.board.cells.count[cell_a], b.board.cells.count[cell_b]
    lines["pairs"] = np.count_nonzero(~np.isnan(after - before), axis=1)
    lost = ~np.isnan(before) & np.isnan(after)
    lines["lost"] = lost_seeds(b.board, b.rows["group"].to_numpy()[pairs[1][both]], seeds, lost, lines)
    _means(lines, (a.board.cells.mean[cell_a], b.board.cells.mean[cell_b]), before, after)
    for name in ("difference", "low", "high", "p", "smallest_p", "detectable", "shifted_p"):
        lines[name] = np.nan
    lines["test"] = ""
    lines["identical"] = ((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=1)
    better = higher_is_better(metric)
    lines["sign"] = 0 if better is None else 1 if better else -1
    margin = settings.margin * lines["sign"].to_numpy()
    steps = np.fmax(a.board.steps_of(cell_a), b.board.steps_of(cell_b))  # the same items: one side that knows is enough
    floors = (statistics.variance_floor(steps),) * 2
    _test_paired(lines, before, after, margin, floors, settings)
    _test_unpaired(lines, before, after, margin, floors, settings)
    retest_by_item(lines, (a.board, cell_a), (b.board, cell_b), metric, margin, settings)
    lines["run_ids_a"] = pd.Series(a.board.runs_of(cell_a), dtype=object)
    lines["run_ids_b"] = pd.Series(b.board.runs_of(cell_b), dtype=object)
    absent = _names(a, b, (pairs[0][gone], pairs[1][gone]), metric, settings)
    return lines, absent.assign(seeds_a=counted_a, seeds_b=0, reason=reasons[gone])


def _not_on_one_machine(a: Board, cells_a: np.ndarray, b: Board, cells_b: np.ndarray) -> list[str]:
    """For pairs of cells of a time why they cannot be compared: the machines differ. Empty where they do not."""
    reasons = []
    for cell_a, cell_b in zip(cells_a.tolist(), cells_b.tolist(), strict=True):
        runs_a, runs_b = (board.cells.runs[board.cells.part(c)] for board, c in ((a, cell_a), (b, cell_b)))
        values = [
            (name, {*part.decode(runs_a), *b.machines.parts[name].decode(runs_b)})
            for name, part in a.machines.parts.items()
        ]
        differ = ", ".join(name for name, found in values if len(found) > 1)
        reasons.append(f"times of other machines are not compared: {differ}" if differ else "")
    return reasons


def _names(a: Side, b: Side, pairs: Sequence[np.ndarray], metric: str, settings: Settings) -> pd.DataFrame:
    before, after = (side.rows.iloc[at].reset_index(drop=True) for side, at in zip((a, b), pairs, strict=True))
    names = [*NAME, "config", *(ALLOWABLE if settings.of_sets else ())]
    lines: pd.DataFrame = before[names].assign(metric=metric)
    if settings.of_sets:
        lines = lines.assign(**{f"{name}_b": after[name] for name in VARYING})
    for board, rows, side in ((a.board, before, "a"), (b.board, after, "b")):
        lines[f"failed_{side}"] = unsuccessful(board)[rows["group"].to_numpy(np.int64)]
    gone = unrecorded.matching(b.board.without_record, after)
    return lines.assign(unrecorded_b=unrecorded.in_words(gone, len(after)))


def _means(lines: pd.DataFrame, means: Sequence[np.ndarray], before: np.ndarray, after: np.ndarray) -> None:
    """Means over the seeds of the difference, which are the pairs where the test is paired; and over all seeds."""
    pairs = lines["pairs"].to_numpy()
    common = ~np.isnan(after - before)
    for side, mean, values in (("a", means[0], before), ("b", means[1], after)):
        of_pairs = np.where(common, values, 0.0).sum(axis=1) / np.maximum(pairs, 1)
        lines[side] = np.where((pairs >= 2) & (pairs < lines[f"seeds_{side}"]), of_pairs, mean)
        lines[f"{side}_all_seeds"] = mean


def _aligned(a: Board, cells_a: np.ndarray, b: Board, cells_b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All seeds, and the values of pairs of cells as two arrays (cells, seeds) with the same seeds in the same columns."""
    (seeds_a, values_a), (seeds_b, values_b) = a.seed_matrix(cells_a), b.seed_matrix(cells_b)
    seeds = np.union1d(seeds_a, seeds_b)
    aligned = []
    for own, values in ((seeds_a, values_a), (seeds_b, values_b)):
        matrix = np.full((len(values), len(seeds)), np.nan)
        matrix[:, np.searchsorted(seeds, own)] = values
        aligned.append(matrix)
    return seeds, aligned[0], aligned[1]


def _test_paired(
    lines: pd.DataFrame,
    before: np.ndarray,
    after: np.ndarray,
    margin: np.ndarray,
    floors: Sequence[np.ndarray],
    settings: Settings,
) -> None:
    """Fill in the lines with at least two pairs."""
    paired = np.flatnonzero(lines["pairs"] >= 2)
    differences = (after - before)[paired]
    floor = (floors[0] + floors[1])[paired]
    tests = statistics.paired_t_rows(differences, settings.confidence, floor)
    shifted = statistics.paired_t_rows(differences + margin[paired, None], settings.confidence, floor)
    _fill(lines, paired, tests, shifted.p, "paired t")
    variance = np.nanvar(differences, axis=1, ddof=1) if len(paired) else np.zeros(0)
    spread = np.sqrt(statistics.floored(variance, tests.difference, floor))
    # Values that do not vary at all tell nothing of how much others would.
    spread[spread == 0] = np.nan
    level = 1 - settings.confidence
    lines.loc[paired, "detectable"] = [
        _effect(int(n), level) * std for n, std in zip(lines["pairs"].iloc[paired], spread, strict=True)
    ]
    if settings.test == "t":
        return
    test = statistics.sign_flip if settings.test == "sign_flip" else statistics.wilcoxon
    for row, values in zip(paired, differences, strict=True):
        known = values[~np.isnan(values)]
        result = test(known, settings.confidence)
        lines.loc[row, ["low", "high", "p", "smallest_p"]] = (
            *(result.difference.low, result.difference.high, result.p, result.smallest_p),
        )
        lines.loc[row, "shifted_p"] = test(known + margin[row], settings.confidence).p
        lines.loc[row, "test"] = result.test


def _test_unpaired(
    lines: pd.DataFrame,
    before: np.ndarray,
    after: np.ndarray,
    margin: np.ndarray,
    floors: Sequence[np.ndarray],
    settings: Settings,
) -> None:
    unpaired = np.flatnonzero(lines["pairs"] < 2)
    a, b, shift = before[unpaired], after[unpaired], margin[unpaired, None]
    least = floors[0][unpaired], floors[1][unpaired]
    tests = statistics.welch_t_rows(a, b, settings.confidence, least)
    shifted = statistics.welch_t_rows(a, b + shift, settings.confidence, least)
    _fill(lines, unpaired, tests, shifted.p, "Welch t")


def _fill(lines: pd.DataFrame, at: np.ndarray, tests: statistics.TTests, shifted_p: np.ndarray, name: str) -> None:
    lines.loc[at, "difference"] = tests.difference
    lines.loc[at, "low"], lines.loc[at, "high"] = (
        tests.difference - tests.half_width,
        tests.difference + tests.half_width,
    )
    lines.loc[at, "p"], lines.loc[at, "shifted_p"] = tests.p, shifted_p
    lines.loc[at, "smallest_p"] = np.where(np.isnan(tests.p), np.nan, 0.0)
    lines.loc[at, "test"] = name


@lru_cache(maxsize=256)
def _effect(pairs: int, level: float) -> float:
    return statistics.detectable_effect(pairs, level)


def judge(lines: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Add `p_corrected` and `verdict`.

    What is identical needs no test. Between two folders it does not count as one, since nothing changed; among sets of
    rows everything that was asked for counts.
    """
    level = 1 - settings.confidence
    tested = ~lines["identical"].to_numpy()
    counted = tested | settings.of_sets
    corrected = statistics.holm(np.where(counted, lines["p"], np.nan))
    shifted = statistics.holm(np.where(counted, lines["shifted_p"], np.nan))
    significant = corrected <= level
    # What was left over when Holm's procedure stopped would have had to pass level / left.
    left = int((counted & ~np.isnan(corrected) & ~significant).sum())
    reachable = lines["smallest_p"].to_numpy() * max(left, 1) <= level
    gain = lines["sign"].to_numpy() * lines["difference"].to_numpy()
    beyond = significant & (shifted <= level) & (gain < -settings.margin)
    choices: list[tuple[np.ndarray, Verdict]] = [
        (~tested, "identical"),
        (beyond, "worse beyond margin"),
        (significant & (gain < 0), "worse"),
        (significant & (gain > 0), "better"),
        (significant, "changed"),
        (reachable, "no difference found"),
    ]
    verdict = np.select(
        [c for c, _ in choices], [np.array(v, object) for _, v in choices], np.array("undecidable", object)
    )
    lines = lines.assign(p_corrected=corrected, verdict=verdict)
    return lines.drop(columns=["identical", "sign", "shifted_p", "smallest_p"])
