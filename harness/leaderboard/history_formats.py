"""A history as text, in the formats of the leaderboard."""

from pathlib import Path

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import write_atomically
from subnetbench.harness.leaderboard.document import Column, Document, Table, number, table_of
from subnetbench.harness.leaderboard.formats import SUFFIXES, plain_records, render_as, write_frame
from subnetbench.harness.leaderboard.history import LINE, History

_TITLE = ("dataset", "task", "split", "protocol", "data_digest")
_NAMES = ("method", "network", "variant", "gallery_variant", "config", "budget", "preset", "tuned")
_DIGITS = 10


def render(found: History, format: str = "terminal", width: int = 120) -> str:
    """The history in one of `formats.FORMATS`: a table for each data set and metric, lines below each other by time."""
    return render_as(
        format,
        table=lambda: _document(found),
        frame=lambda: found.frame,
        content=lambda: {
            "confidence": found.confidence,
            "points": plain_records(found.frame),
            "notes": found.notes,
        },
        width=width,
    )


def write(found: History, path: Path | str) -> None:
    """Write to a file in the format that its suffix names: .parquet, .csv, .json, .md, .tex or .txt.

    Raises `UserError` for another suffix.
    """
    path = Path(path)
    if path.suffix in SUFFIXES:
        write_atomically(path, render(found, SUFFIXES[path.suffix]))
    elif path.suffix == ".parquet":
        write_frame(found.frame, path)
    else:
        raise UserError("no such format", field="out", value=str(path), allowed=", ".join([".parquet", *SUFFIXES]))


def _document(found: History) -> Document:
    parts = found.frame.groupby([*_TITLE, "metric"], sort=False)
    changes = found.changed
    words = ", ".join(f"{count:,} {verdict}" for verdict, count in changes["verdict"].value_counts().items())
    points, lines = len(found.frame), found.frame.groupby([*LINE, "metric"]).ngroups
    summary = (
        f"{points:,} point{'' if points == 1 else 's'} of {lines:,} line{'' if lines == 1 else 's'}; "
        f"changes: {words or 'none'}."
    )
    return Document([_table(part) for _, part in parts], [summary, *found.notes])


def _table(part: pd.DataFrame) -> Table:
    one = part.iloc[0]
    shown = [name for name in _NAMES if name == "method" or part[name].nunique() > 1]
    common = [f"{name} {one[name]}" for name in ("network", "budget") if name not in shown and one[name]]
    title = " · ".join(str(word) for word in [*(one[name] for name in _TITLE[:-1]), *common, one["metric"]] if word)
    half = (part["high"] - part["mean"]).to_numpy()
    change_half = ((part["change_high"] - part["change_low"]) / 2).to_numpy()
    first = (part["version"] == 1).to_numpy()
    columns = [
        *(Column.of("gallery" if name == "gallery_variant" else name, part[name]) for name in shown),
        Column("first run", [f"{time:%Y-%m-%d %H:%M}" for time in part["first"]]),
        Column("commit", [_short(commit) for commit in part["commit"]]),
        Column("code", [digest[:8] or "unknown" for digest in part["code_digest"]]),
        Column("mean", [number(m, h) for m, h in zip(part["mean"], np.nan_to_num(half), strict=True)], numeric=True),
        Column.of("seeds", part["seeds"], numeric=True),
        *([Column.of("failed", part["failed"], numeric=True)] if part["failed"].any() else []),
        Column(
            "change",
            [
                "" if start else "–" if np.isnan(c) else f"{'+' if c > 0 else ''}{number(c, h)}"
                for start, c, h in zip(first, part["change"], np.nan_to_num(change_half), strict=True)
            ],
            numeric=True,
        ),
        Column("p_corrected", ["" if np.isnan(p) else f"{p:.3g}" for p in part["p_corrected"]], numeric=True),
        Column.of("verdict", part["verdict"]),
        *([Column.of("also differs", part["also"])] if (part["also"] != "").any() else []),
    ]
    return table_of(title, columns)


def _short(commit: str) -> str:
    sha, _, more = commit.partition(" ")
    plus = "+" if sha.endswith("+") else ""
    return f"{sha.rstrip('+')[:_DIGITS]}{plus}{' ' if more else ''}{more}"
