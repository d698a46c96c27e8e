"""What changed between two leaderboards: two commits, two machines, two tunings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from subnetbench.harness import statistics
from subnetbench.harness.errors import UserError
from subnetbench.harness.leaderboard.board import Leaderboard, higher_is_better
from subnetbench.harness.leaderboard.frames import View, view_of
from subnetbench.harness.leaderboard.matching import ALLOWABLE, NAME, Side, match

Verdict = Literal[
    "better", "worse", "worse beyond margin", "changed", "no difference found", "undecidable", "identical"
]


@dataclass(frozen=True)
class Settings:
    """How a comparison is made.

    `test` is the test of rows with at least two matching seeds; others get Welch's t test. `confidence` is that of
    each interval, and 1 - `confidence` the level of the whole family of tests, by Holm's correction. `margin` is
    how much worse, in the unit of the metric, is still acceptable. `across` names columns out of `ALLOWABLE` in
    which the two sides may differ. `metrics`, `where` and `splits` choose as in `View`; without `metrics` the
    primary metrics of both sides are compared.
    """

    metrics: Sequence[str] | None = None
    where: str | None = None
    splits: Sequence[str] | None = ("test",)
    test: statistics.TestName = "t"
    confidence: float = 0.95
    margin: float = 0.0
    across: Sequence[str] = ()

    def __post_init__(self) -> None:
        if strange := sorted(set(self.across) - set(ALLOWABLE)):
            raise UserError("rows are never compared across it", field="across", value=strange[0], allowed=ALLOWABLE)
        if self.test not in _PAIRED:
            raise UserError("no such test", field="test", value=self.test, allowed=", ".join(_PAIRED))
        if not self.margin >= 0:
            raise UserError("must not be negative", field="margin", value=self.margin)
        if not 0 < self.confidence < 1:
            raise UserError("must lie between 0 and 1", field="confidence", value=self.confidence)


@dataclass(frozen=True)
class Differences:
    """The result of `compare`.

    `rows` has one line for each compared row and metric: the columns of `NAME`, `config`, `metric`, `a` and `b`
    (means), `difference` (b - a) with its interval `low` and `high`, `seeds_a`, `seeds_b`, `pairs` (seeds that
    match), `test`, `p`, `p_corrected`, `verdict`, `detectable` (the true difference that this many pairs find with
    80 % power, at the observed spread and without correction), `run_ids_a`, `run_ids_b`. `only_a` and `only_b`
    hold the rows without a counterpart and the `reason`.
    """

    rows: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    notes: list[str]

    def frame(self) -> pd.DataFrame:
        """The compared rows as a tidy frame of its own."""
        return self.rows.copy()

    @property
    def exit_status(self) -> int:
        """1 if a row is significantly worse by more than the margin, else 0."""
        return int((self.rows["verdict"] == "worse beyond margin").any())


def compare(a: Leaderboard | Path | str, b: Leaderboard | Path | str, settings: Settings | None = None) -> Differences:
    """Compare the rows of `b` with the same rows of `a`, metric by metric; both may be results folders too."""
    settings = settings or Settings()
    a, b = (side if isinstance(side, Leaderboard) else Leaderboard(side) for side in (a, b))
    metrics = list(dict.fromkeys(settings.metrics or _primary(a, b)))
    view = View(metrics, settings.where, settings.splits)
    before, after = (Side(board, _scored(view_of(board, view)[0])) for board in (a, b))
    matches = match(before, after, settings.across)
    lines = [_lines(before, after, matches.a, matches.b, name, settings) for name in metrics]
    rows = _judge(pd.concat(lines, ignore_index=True), settings)
    notes = [*matches.notes, *_explain(rows, settings)]
    return Differences(rows, matches.only_a, matches.only_b, notes)


def _primary(a: Leaderboard, b: Leaderboard) -> list[str]:
    names = {name for board in (a, b) for name in board.records.runs["primary_metric"].unique().to_pylist()}
    common = sorted(name for name in names if name in a.metrics and name in b.metrics)
    if not common:
        raise UserError("the two leaderboards have no primary metric in common", field="metrics")
    return common


def _scored(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"] != ""].reset_index(drop=True)


def _lines(a: Side, b: Side, at_a: np.ndarray, at_b: np.ndarray, metric: str, settings: Settings) -> pd.DataFrame:
    """One line for each pair of rows that both have this metric."""
    cell_a, cell_b = a.board.cell_of(a.rows, metric)[at_a], b.board.cell_of(b.rows, metric)[at_b]
    both = (cell_a >= 0) & (cell_b >= 0)
    cell_a, cell_b = cell_a[both], cell_b[both]
    before, after = _aligned(a.board, cell_a, b.board, cell_b)
    lines = a.rows.iloc[at_a[both]][[*NAME, "config"]].reset_index(drop=True)
    lines["metric"] = metric
    lines["a"], lines["b"] = a.board.cells.mean[cell_a], b.board.cells.mean[cell_b]
    lines["difference"] = np.nan
    for name in ("low", "high", "p", "smallest_p", "detectable", "shifted_p"):
        lines[name] = np.nan
    lines["test"] = ""
    lines["seeds_a"], lines["seeds_b"] = a.board.cells.count[cell_a], b.board.cells.count[cell_b]
    lines["pairs"] = np.count_nonzero(~np.isnan(after - before), axis=1)
    lines["identical"] = ((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=1)
    better = higher_is_better(metric)
    lines["sign"] = 0 if better is None else 1 if better else -1
    grace = settings.margin * lines["sign"].to_numpy()
    _test_paired(lines, before, after, grace, settings)
    _test_unpaired(lines, before, after, grace, settings)
    lines["run_ids_a"] = pd.Series(a.board.runs_of(cell_a), dtype=object)
    lines["run_ids_b"] = pd.Series(b.board.runs_of(cell_b), dtype=object)
    return lines


def _aligned(a: Leaderboard, cells_a: np.ndarray, b: Leaderboard, cells_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of pairs of cells as two arrays (cells, seeds) with the same seeds in the same columns."""
    (seeds_a, values_a), (seeds_b, values_b) = a.seed_matrix(cells_a), b.seed_matrix(cells_b)
    seeds = np.union1d(seeds_a, seeds_b)
    aligned = []
    for own, values in ((seeds_a, values_a), (seeds_b, values_b)):
        matrix = np.full((len(values), len(seeds)), np.nan)
        matrix[:, np.searchsorted(seeds, own)] = values
        aligned.append(matrix)
    return aligned[0], aligned[1]


_PAIRED = {"t": "paired t", "sign_flip": "sign flip", "wilcoxon": "Wilcoxon"}


def _test_paired(
    lines: pd.DataFrame, before: np.ndarray, after: np.ndarray, grace: np.ndarray, settings: Settings
) -> None:
    """Fill in the lines with at least two pairs."""
    paired = np.flatnonzero(lines["pairs"] >= 2)
    differences = (after - before)[paired]
    tests = statistics.paired_t_rows(differences, settings.confidence)
    shifted = statistics.paired_t_rows(differences + grace[paired, None], settings.confidence)
    _fill(lines, paired, tests, shifted.p, "paired t")
    spread = np.nanstd(differences, axis=1, ddof=1) if len(paired) else np.zeros(0)
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
        lines.loc[row, "shifted_p"] = test(known + grace[row], settings.confidence).p
        lines.loc[row, "test"] = result.test


def _test_unpaired(
    lines: pd.DataFrame, before: np.ndarray, after: np.ndarray, grace: np.ndarray, settings: Settings
) -> None:
    unpaired = np.flatnonzero(lines["pairs"] < 2)
    tests = statistics.welch_t_rows(before[unpaired], after[unpaired], settings.confidence)
    shifted = statistics.welch_t_rows(before[unpaired], after[unpaired] + grace[unpaired, None], settings.confidence)
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


def _judge(lines: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Add `p_corrected` and `verdict`; what is identical needs no test and does not count as one."""
    level = 1 - settings.confidence
    tested = ~lines["identical"].to_numpy()
    corrected = statistics.holm(np.where(tested, lines["p"], np.nan))
    shifted = statistics.holm(np.where(tested, lines["shifted_p"], np.nan))
    significant = corrected <= level
    # What was left over when Holm's procedure stopped would have had to pass level / left.
    left = int((tested & ~np.isnan(corrected) & ~significant).sum())
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


def _explain(rows: pd.DataFrame, settings: Settings) -> Iterator[str]:
    tested = int(rows["p_corrected"].notna().sum())
    percent = f"{100 * settings.confidence:g} %"
    tests = ", ".join(sorted(set(rows["test"]) - {""})) or "none"
    yield (
        f"Differences are b - a. Tests: {tests}, paired by seed where at least two seeds match; p is corrected by Holm "
        f"over {tested} comparisons. Intervals are at {percent} over seeds, not over test items, and not corrected."
    )
    undecidable = rows[rows["verdict"] == "undecidable"]
    for seeds, count in undecidable.groupby(undecidable[["seeds_a", "seeds_b"]].min(axis=1)).size().items():
        plural = "s" if seeds != 1 else ""
        yield f"{count:,} undecidable with {seeds} seed{plural}: no values at all could have been significant."
    found = rows["detectable"].to_numpy()[(rows["verdict"] == "no difference found").to_numpy()]
    if np.isfinite(found).any():
        yield (
            "Where no difference was found, the seeds would have found, with 80 % power and before correction, a true "
            f"difference of {np.nanmedian(found):.2g} (median over rows; column `detectable`)."
        )
