"""A comparison of two leaderboards as text, in the formats of the leaderboard itself."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from subnetbench.harness.errors import unknown
from subnetbench.harness.leaderboard.compare import Differences
from subnetbench.harness.leaderboard.formats import FORMATS, latex, markdown, plain_records, terminal, tidy_csv
from subnetbench.harness.leaderboard.matching import NAME
from subnetbench.harness.leaderboard.tables import Document, Table, number, table_of

_ORDER = ("worse beyond margin", "worse", "better", "changed", "undecidable", "no difference found", "identical")
_HEADERS = {"gallery_variant": "gallery"}


def render(differences: Differences, format: str = "terminal", width: int = 120) -> str:
    """The differences in one of `FORMATS`; rows that got worse come first."""
    if format == "csv":
        return tidy_csv(_sorted(differences.rows))
    if format == "json":
        return _json(differences)
    writers: dict[str, Callable[[Document], str]] = {
        "terminal": lambda content: terminal(content, width),
        "markdown": markdown,
        "latex": latex,
    }
    if format not in writers:
        raise unknown("format", format, FORMATS)
    return writers[format](_document(differences))


def _document(differences: Differences) -> Document:
    tables = [_changes(_sorted(differences.rows))] if len(differences.rows) else []
    for name, only in (("a", differences.only_a), ("b", differences.only_b)):
        if len(only):
            tables.append(_coverage(f"Only in {name}", only))
    return Document(tables, [_summary(differences), *differences.notes])


def _summary(differences: Differences) -> str:
    verdicts = differences.rows["verdict"].value_counts()
    counts = [f"{verdicts[name]:,} {name}" for name in _ORDER if name in verdicts.index]
    return (
        f"{len(differences.rows):,} compared ({', '.join(counts) or 'nothing'}); only in a: {len(differences.only_a):,} "
        f"rows, only in b: {len(differences.only_b):,} rows."
    )


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    rank = rows["verdict"].map({name: place for place, name in enumerate(_ORDER)})
    return rows.iloc[np.lexsort([rows["p_corrected"].fillna(2.0), rank])].reset_index(drop=True)


def _names(rows: pd.DataFrame) -> list[tuple[str, bool, list[str]]]:
    shown = [name for name in (*NAME, "config") if name in ("dataset", "method") or rows[name].nunique() > 1]
    return [(_HEADERS.get(name, name), False, [str(value) for value in rows[name]]) for name in shown]


def _changes(rows: pd.DataFrame) -> Table:
    half = (rows["high"] - rows["low"]) / 2
    signed = [f"{'+' if d > 0 else ''}{number(d, h)}" for d, h in zip(rows["difference"], half, strict=True)]
    corrected = ["–" if np.isnan(p) else f"{p:.3g}" for p in rows["p_corrected"]]
    columns = [
        ("verdict", False, list(rows["verdict"])),
        *_names(rows),
        ("metric", False, list(rows["metric"])),
        ("a", True, [number(value) for value in rows["a"]]),
        ("b", True, [number(value) for value in rows["b"]]),
        ("difference", True, signed),
        ("p_corrected", True, corrected),
        ("pairs", True, [str(pairs) for pairs in rows["pairs"]]),
        ("detectable", True, [number(value) for value in rows["detectable"]]),
    ]
    return table_of("Differences", columns)


def _coverage(title: str, rows: pd.DataFrame) -> Table:
    return table_of(title, [*_names(rows), ("reason", False, list(rows["reason"]))])


def _json(differences: Differences) -> str:
    content: dict[str, Any] = {
        "summary": _summary(differences),
        "exit_status": differences.exit_status,
        "rows": plain_records(_sorted(differences.rows)),
        "only_a": plain_records(differences.only_a),
        "only_b": plain_records(differences.only_b),
        "notes": differences.notes,
    }
    return json.dumps(content, indent=1, default=str) + "\n"
