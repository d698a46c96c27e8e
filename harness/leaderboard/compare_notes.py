"""What a reader of a comparison must know: tests, power, failures, and over which seeds the means are."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.compare_settings import Settings
from subnetbench.harness.leaderboard.item_tests import reasons


def notes_of(rows: pd.DataFrame, failed: pd.DataFrame, settings: Settings) -> Iterator[str]:
    """One sentence each."""
    yield from _explain(rows, settings)
    if settings.of_sets:
        yield "Verdicts say how the row of b compares with the row of a."
    if fewer := int(((rows["seeds_b"] < rows["seeds_a"]) & (rows["failed_b"] == 0)).sum()):
        yield f"{fewer:,} with fewer seeds in b than in a, but without failed runs: this fails nothing."
    part = (rows["pairs"] >= 2) & ((rows["pairs"] < rows["seeds_a"]) | (rows["pairs"] < rows["seeds_b"]))
    if count := int(part.sum()):
        yield (
            f"{count:,} compared over the matching seeds alone: `a`, `b` and the difference are over these pairs, "
            "`a_all_seeds` and `b_all_seeds` over all finished seeds of each side."
        )
    for side, configs in failed.groupby("side"):
        total = int(configs["failed"].sum())
        by_name = configs.groupby(["method", "dataset"])[["failed"]].sum().reset_index()
        words = [f"{line['method']} on {line['dataset']} {line['failed']:,}" for line in by_name.to_dict("records")]
        yield f"Failed runs of {side}: {total:,} ({', '.join(words)}); counted, never averaged."


_OVER = {
    "seeds": "over seeds, not over test items",
    "items": "over test items, for the runs that there are and not over seeds",
    "joint": "over seeds and test items together",
}


def _pairing(rows: pd.DataFrame, settings: Settings) -> Iterator[str]:
    """Which lines are not tested by item although that was asked for; or that it was not asked for."""
    if settings.pairing == "seeds":
        if settings.pair is None:
            yield "Whether differences hold for other test items too: --pair joint, where outcomes by item are stored."
        return
    if count := int((rows["pair"] != settings.pairing).sum()):
        instead = "not tested" if settings.pairing == "items" else "tested over seeds alone, not over test items"
        yield f"{count:,} {instead}: {reasons(rows['no_items'].tolist())}."


def _explain(rows: pd.DataFrame, settings: Settings) -> Iterator[str]:
    tested = int(rows["p_corrected"].notna().sum())
    percent = f"{100 * settings.confidence:g} %"
    tests = ", ".join(sorted(set(rows["test"]) - {""})) or "none"
    yield (
        f"Differences are b - a. Tests: {tests}, paired by seed where at least two seeds match; p is corrected by Holm "
        f"over {tested} comparisons. Intervals are at {percent} {_OVER[settings.pairing]}, and not corrected. No variance "
        "over seeds is taken for less than rounding to whole test items gives."
    )
    yield from _pairing(rows, settings)
    undecidable = rows[rows["verdict"] == "undecidable"]
    alike = undecidable["p"].isna() & (undecidable[["seeds_a", "seeds_b"]].min(axis=1) >= 2)
    if alike.any():
        yield (
            f"{int(alike.sum()):,} undecidable, because the values do not vary over the seeds and the records do not say "
            "over how many items they were taken: equal by granularity, or no spread at all."
        )
    undecidable = undecidable[~alike]
    for seeds, count in undecidable.groupby(undecidable[["seeds_a", "seeds_b"]].min(axis=1)).size().items():
        plural = "s" if seeds != 1 else ""
        yield f"{count:,} undecidable with {seeds} seed{plural}: no values at all could have been significant."
    found = rows["detectable"].to_numpy()[(rows["verdict"] == "no difference found").to_numpy()]
    if np.isfinite(found).any():
        yield (
            "Where no difference was found, the seeds would have found, with 80 % power and before correction, a true "
            f"difference of {np.nanmedian(found):.2g} (median over rows; column `detectable`)."
        )
