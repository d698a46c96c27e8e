"""What runs spent on training, as a part of what makes a row: totals within 1 % of each other are one budget."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from subnetbench.harness.core.config import EARLY_STOP
from subnetbench.harness.core.quantities import macs_text
from subnetbench.harness.leaderboard.codes import Codes, combine

TOLERANCE = 0.01
"""Totals of training that differ by a larger share are different budgets."""
ALLOWED = "allowed"
"""The column of rows with their budget in words alone, without what was spent."""
TOTAL = "total_training_macs"
"""The column of rows with the multiply-accumulates of training, inputs included; NaN: not known."""


def totals(runs: pa.Table) -> np.ndarray:
    """Multiply-accumulates of each record's training and of its inputs', (records,); NaN where one is not known."""
    own, inputs = (runs[name].to_numpy().astype(np.float64) for name in ("training_macs", "input_training_macs"))
    return np.asarray(own + inputs)


def spending(runs: pa.Table, experiment: Sequence[str]) -> Codes:
    """For each record a text of its total, equal for records whose totals are; empty where it is not known, and for runs
    that did not finish, which may have spent any part of it.

    Records of one experiment (equal in the columns `experiment`) lie within 1 % of the smallest of their kind. Where
    seeds may stop early they spend what they need: all of them are of one kind, which names the range.
    """
    total = totals(runs)
    labels = np.full(len(total), "", object)
    status = Codes.of(runs["status"])
    known = np.flatnonzero(np.isfinite(total) & (status.decode() == "finished"))
    if len(known):
        group = combine([Codes.of(runs[name]) for name in experiment]).codes[known]
        order = np.lexsort((total[known], group))
        known, group = known[order], group[order]
        smallest = _smallest_alike(total[known], group)
        values, index = np.unique(smallest, return_inverse=True)
        texts = np.array([macs_text(value) for value in _smallest_alike(values, np.zeros(len(values)))], object)
        labels[known] = texts[index]
        budget = Codes.of(runs["budget"])
        early = np.array([text.startswith(EARLY_STOP) for text in budget.values], bool)[budget.codes[known]]
        _label_ranges(labels, known[early], group[early], total)
    codes, values = pd.factorize(labels)
    return Codes(np.asarray(codes, np.int64), np.asarray(values, object))


def _smallest_alike(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each value the smallest of those that it belongs to: ascending within each group, cut beyond 1 %."""
    smallest = values.copy()
    start = 0
    for i in range(1, len(values)):
        if group[i] != group[start] or values[i] > values[start] * (1 + TOLERANCE):
            start = i
        smallest[i] = values[start]
    return smallest


def _label_ranges(labels: np.ndarray, rows: np.ndarray, group: np.ndarray, total: np.ndarray) -> None:
    for members in pd.Series(rows).groupby(group).indices.values():
        of_group = rows[members]
        low, high = macs_text(total[of_group].min()), macs_text(total[of_group].max())
        labels[of_group] = low if low == high else f"{low} to {high}"


def budget_label(budget: str, spent: str) -> str:
    """What a run was allowed, and what it spent: `16 epochs x 1000 images, 6.8 GMAC`."""
    return f"{budget}, {spent}" if spent else budget


def align_budgets(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of two leaderboards with the same `budget` where they may be compared: the same words, and totals within
    1 %, or for the same method and network not known on a side."""
    both = pd.concat([a, b], ignore_index=True)
    words = [
        str(budget).removesuffix(f", {spent}") if spent else str(budget)
        for budget, spent in zip(both["budget"], both["spending"], strict=True)
    ]
    total, spent = both[TOTAL].to_numpy(np.float64), both["spending"].to_numpy(object).copy()
    group = pd.factorize(np.array(words, object))[0]
    order = np.lexsort((total, group))
    order = order[np.isfinite(total[order])]
    smallest = _smallest_alike(total[order], group[order])
    spent[order] = [macs_text(value) for value in smallest]
    alike = both.assign(words=words).groupby(["task", "dataset", "method", "network", "words"], sort=False)
    for members in alike.indices.values():
        known = {text for text in spent[members] if text}
        if len(known) == 1:
            spent[members] = known.pop()
    both["budget"] = [budget_label(word, text) for word, text in zip(words, spent, strict=True)]
    return both[: len(a)].set_axis(a.index), both[len(a) :].set_axis(b.index)
