"""Rows of an input's own network (a teacher beside its student, levels of a cascade) belong to the input."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subnetbench.harness.core.quantities import macs_text
from subnetbench.harness.leaderboard.spending import ALLOWED, TOLERANCE, TOTAL, budget_label

MEASURED_BY = "input_of"
"""The column of rows with the method whose runs measured them, for networks of its inputs; else empty."""


@dataclass(frozen=True)
class _Input:
    """One input as the runs that start from it recorded it."""

    network: str
    budget: str
    total: float
    variants: tuple[str, ...]


_UNKNOWN = _Input("", "unknown", np.nan, ())


def attribute(rows: pd.DataFrame, origin: np.ndarray, spent: dict[int, str]) -> pd.DataFrame:
    """The rows, those with an `origin` (rows,) under its method, with its network, budget and spending.

    `spent` has the column `spent_json` of a run of each group that has such rows.
    """
    rows = rows.assign(**{MEASURED_BY: np.where(origin == "", "", rows["method"])})
    inputs = {group: tuple(_inputs(text)) for group, text in spent.items()}
    changed = {
        name: rows[name].to_numpy(object).copy() for name in ("method", "network", "budget", "spending", TOTAL, ALLOWED)
    }
    groups, variants = rows["group"].to_numpy(np.int64), rows["variant"].to_numpy(object)
    for at in np.flatnonzero(origin != "").tolist():
        found = next((each for each in inputs.get(int(groups[at]), ()) if variants[at] in each.variants), _UNKNOWN)
        text = _text(found.total, rows)
        new = (origin[at], found.network, budget_label(found.budget, text), text, found.total, found.budget)
        for values, value in zip(changed.values(), new, strict=True):
            values[at] = value
    return rows.assign(**{**changed, TOTAL: changed[TOTAL].astype(np.float64)})


def _text(total: float, rows: pd.DataFrame) -> str:
    """The words that other rows have for the same total."""
    if not np.isfinite(total):
        return ""
    others = rows[TOTAL].to_numpy(np.float64)
    alike = np.flatnonzero((np.abs(others - total) <= TOLERANCE * total) & (rows["spending"] != "").to_numpy())
    return str(rows["spending"].iat[alike[0]]) if len(alike) else macs_text(total)


def _inputs(text: str) -> Iterator[_Input]:
    """What a record says of its inputs; what is not as this version writes it is left out."""
    try:
        found = {str(each["run_id"]): each for each in json.loads(text)["inputs"]}
        for each in found.values():
            below = [found[name]["training_macs"] for name in each["inputs"]]
            macs = [each["training_macs"], *below]
            total = np.nan if None in macs else float(sum(macs))
            yield _Input(str(each["network"]), str(each["budget"]), total, tuple(map(str, each["variants"])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
