"""A leaderboard, or any frame, as text: terminal, Markdown, LaTeX, CSV or JSON; or as a file, parquet too.

Names, configs and errors come from files that anybody can write. They are shown as text: without control
characters, and escaped for the format.
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
import pyarrow as pa

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.core.files import publish, publish_table
from subnetbench.harness.leaderboard.beside import beside
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.contests import document
from subnetbench.harness.leaderboard.document import Column, Document, table_of
from subnetbench.harness.leaderboard.frames import View, selection_of, tidy, view_of
from subnetbench.harness.leaderboard.markup import clean, latex, markdown, tidy_csv
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import PublishedValue
from subnetbench.harness.leaderboard.selection import chosen_on_test
from subnetbench.harness.leaderboard.terminal import terminal

Format = Literal["terminal", "markdown", "latex", "csv", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
_log = logging.getLogger(__name__)
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".txt": "terminal"}


def render(
    board: Board,
    format: str = "terminal",
    view: View | None = None,
    published: Sequence[PublishedValue] = (),
    width: int = 120,
) -> str:
    """The leaderboard as text.

    Args:
        board: The leaderboard.
        format: One of `FORMATS`. Terminal, Markdown and LaTeX hold tables and notes; CSV is the tidy frame; JSON is the
            tidy frame, the notes and the published values.
        view: What is shown. Without metrics in it, tables show the primary metrics and the costs, frames everything.
        published: Published values that are set beside measured ones, in tables and JSON.
        width: Columns of the terminal.

    Raises:
        UserError: The format, or a name in the view, is not known.
    """
    view = view or View()
    return render_as(
        format,
        table=lambda: document(board, view, published),
        frame=lambda: _frame(board, view),
        content=lambda: _content(board, view, published),
        width=width,
    )


def render_as(
    format: str,
    *,
    table: Callable[[], Document],
    frame: Callable[[], pd.DataFrame],
    content: Callable[[], object],
    width: int = 120,
) -> str:
    """One of three forms of the same thing, whichever a format needs: a document, a frame for CSV, or JSON."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "csv":
        return tidy_csv(frame())
    if format == "json":
        return json.dumps(content(), indent=1, default=str) + "\n"
    return {"markdown": markdown, "latex": latex}.get(format, lambda found: terminal(found, width))(table())


def render_frame(frame: pd.DataFrame, format: str = "terminal", width: int = 120) -> str:
    """Any frame in one of `FORMATS`; a table leaves out columns that say the same in all rows, and notes them below."""
    return render_as(
        format,
        table=lambda: _document_of(frame),
        frame=lambda: frame,
        content=lambda: plain_records(frame),
        width=width,
    )


def _document_of(frame: pd.DataFrame) -> Document:
    names = [name for name in frame.columns if frame[name].nunique() > 1 or len(frame) == 1]
    columns = [Column.of(name, frame[name], numeric=frame[name].dtype.kind in "fi") for name in names]
    same = [f"{name}: {frame[name].iloc[0]}" for name in frame.columns if name not in names and len(frame)]
    return Document([table_of(f"{len(frame):,} values", columns)] if names else [], same)


def write_frame(frame: pd.DataFrame, path: Path | str) -> None:
    """Write any frame to a file in the format that its suffix names; raises `UserError` for another suffix."""
    path = Path(path)
    if path.suffix == ".parquet":
        publish_table(pa.Table.from_pandas(frame, preserve_index=False), path, overwrite=True)
    elif path.suffix in SUFFIXES:
        _write_text(path, render_frame(frame, SUFFIXES[path.suffix]))
    else:
        raise UserError("no such format", field="out", value=str(path), allowed=", ".join([".parquet", *SUFFIXES]))


def write(board: Board, path: Path | str, view: View | None = None, published: Sequence[PublishedValue] = ()) -> None:
    """Write the leaderboard to a file in the format that its suffix names: .parquet, .csv, .json, .md, .tex, .txt."""
    path = Path(path)
    if path.suffix in SUFFIXES:
        _write_text(path, render(board, SUFFIXES[path.suffix], view, published))
    else:
        write_frame(_frame(board, view or View()), path)


def _write_text(path: Path, text: str) -> None:
    publish(path, lambda file: file.write(text.encode()), overwrite=True)


def plain_records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """The lines of a frame for JSON, which has no NaN and no infinity."""
    return [
        {
            str(name): None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in line.items()
        }
        for line in frame.to_dict("records")
    ]


def _frame(board: Board, view: View) -> pd.DataFrame:
    """The tidy frame for formats without notes; what must be known of how its rows were chosen is logged."""
    selection = selection_of(board, view)
    rows, _ = view_of(board, replace(view, metrics=[]))
    for line in chosen_on_test(board, rows) if selection is None else selection.notes:
        _log.warning(clean(line))
    return tidy(board, view)


def _content(board: Board, view: View, published: Sequence[PublishedValue]) -> dict[str, object]:
    rows, columns = view_of(board, view)
    printed = beside(board, rows, [column.metric for column in columns], published)
    return {
        "confidence": board.confidence,
        "interval": board.intervals.kind,
        "cells": plain_records(tidy(board, view)),
        "published": [asdict(line) for line in printed.lines],
        "notes": [*printed.notes, *notes(board, rows, selection_of(board, view))],
        "failures": plain_records(board.failures()),
    }
