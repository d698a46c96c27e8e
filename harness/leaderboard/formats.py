"""A leaderboard as text: terminal, Markdown, LaTeX, CSV or JSON; or as a parquet file.

Names, configs and errors come from files that anybody can write. They are shown as text: without control
characters, and escaped for the format.
"""

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd
from rich.cells import cell_len, chop_cells

from subnetbench.harness.errors import UserError, unknown
from subnetbench.harness.leaderboard.frames import View, tidy, view_of
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import Figure
from subnetbench.harness.leaderboard.tables import Document, document, table_of

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard

Format = Literal["terminal", "markdown", "latex", "csv", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
_SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".txt": "terminal"}


def render(
    board: "Leaderboard",
    format: str = "terminal",
    view: View | None = None,
    published: Sequence[Figure] = (),
    width: int = 120,
) -> str:
    """The leaderboard in one of `FORMATS`. `view` says what is shown, `published` what is set beside it.

    Terminal, Markdown and LaTeX hold tables and notes; CSV is the tidy frame; JSON is the tidy frame and the
    notes. Without metrics in the view, tables show the primary metrics and the costs, frames everything.
    """
    view = view or View()
    if format == "csv":
        return tidy_csv(tidy(board, view))
    if format == "json":
        return _json(board, view)
    writers: dict[str, Callable[[Document], str]] = {
        "terminal": lambda content: terminal(content, width),
        "markdown": markdown,
        "latex": latex,
    }
    if format not in writers:
        raise unknown("format", format, FORMATS)
    return writers[format](document(board, view, published))


def render_frame(frame: pd.DataFrame, format: str, width: int = 120) -> str:
    """Any frame in one of `FORMATS`; a table leaves out columns that say the same in all rows, and tells them below."""
    if format == "csv":
        return tidy_csv(frame)
    if format == "json":
        return json.dumps(plain_records(frame), indent=1, default=str) + "\n"
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    names = [name for name in frame.columns if frame[name].nunique() > 1 or len(frame) == 1]
    columns = [(name, frame[name].dtype.kind in "fi", [str(value) for value in frame[name]]) for name in names]
    same = [f"{name}: {frame[name].iloc[0]}" for name in frame.columns if name not in names and len(frame)]
    content = Document([table_of(f"{len(frame):,} values", columns)] if names else [], same)
    return {"markdown": markdown, "latex": latex}.get(format, lambda found: terminal(found, width))(content)


def write_frame(frame: pd.DataFrame, path: Path | str) -> None:
    """Write any frame to a file in the format that its suffix names."""
    from subnetbench.harness.records.record import publish, publish_table

    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow as pa

        publish_table(pa.Table.from_pandas(frame, preserve_index=False), path, overwrite=True)
    elif path.suffix in _SUFFIXES:
        text = render_frame(frame, _SUFFIXES[path.suffix])
        publish(path, lambda file: file.write(text.encode()), overwrite=True)
    else:
        raise UserError("no such format", field="out", value=str(path), allowed=", ".join([".parquet", *_SUFFIXES]))


def write(board: "Leaderboard", path: Path | str, view: View | None = None, published: Sequence[Figure] = ()) -> None:
    """Write the leaderboard to a file in the format that its suffix names: .parquet, .csv, .json, .md, .tex, .txt."""
    from subnetbench.harness.records.record import publish

    path = Path(path)
    if path.suffix in _SUFFIXES:
        text = render(board, _SUFFIXES[path.suffix], view, published)
        publish(path, lambda file: file.write(text.encode()), overwrite=True)
    else:
        write_frame(tidy(board, view or View()), path)


def clean(text: str) -> str:
    """The text on one line, without characters that would move a cursor or turn the direction of writing."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def terminal(content: Document, width: int = 120) -> str:
    """Tables that fit `width`: where a table is wider, its figures go on below, beside the same names.

    Laid out here and not by rich, which takes a minute for the tables of a million scores.
    """
    lines: list[str] = []
    for table in content.tables:
        lines += [*_wrap(clean(table.title), width), ""]
        names = len(table.numeric) - sum(table.numeric)
        widest = max(_NARROWEST_NAME, min(_WIDEST_NAME, width * 2 // 3 // max(names, 1)))
        columns = [
            _Column(
                [header] if not numeric else header.split("_"),
                [clean(line[i]) for line in table.cells],
                numeric,
                widest,
            )
            for i, (header, numeric) in enumerate(zip(table.headers, table.numeric, strict=True))
        ]
        for piece in _pieces(columns, width):
            lines += [*_layout(piece), ""]
    for note in content.notes:
        lines += _wrap(clean(note), width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


_NARROWEST_NAME, _WIDEST_NAME = 10, 40
_GAP = "  "


@dataclass(frozen=True)
class _Column:
    header: list[str]
    cells: list[str]
    numeric: bool
    widest: int

    @cached_property
    def width(self) -> int:
        widest = max(map(cell_len, [*self.header, *self.cells]))
        return widest if self.numeric else min(widest, self.widest)

    def pad(self, text: str) -> str:
        space = " " * (self.width - cell_len(text))
        return space + text if self.numeric else text + space

    def fold(self, text: str) -> list[str]:
        return [text] if cell_len(text) <= self.width else chop_cells(text, self.width)


def _pieces(columns: list[_Column], width: int) -> list[list[_Column]]:
    """The columns of each part of a table: the rank and all names, and as many figures as fit beside them."""
    names = [column for column in columns if not column.numeric or column.header == ["rank"]]
    room = width - sum(column.width + len(_GAP) for column in names)
    pieces: list[list[_Column]] = [[]]
    taken = 0
    for column in columns:
        if column not in names:
            if taken + column.width > room and pieces[-1]:
                pieces.append([])
                taken = 0
            pieces[-1].append(column)
            taken += column.width + len(_GAP)
    return [[*names, *piece] for piece in pieces]


def _layout(columns: list[_Column]) -> Iterator[str]:
    height = max(len(column.header) for column in columns)
    for i in range(height):
        yield _GAP.join(c.pad(([""] * (height - len(c.header)) + c.header)[i]) for c in columns)
    yield "─" * (sum(column.width + len(_GAP) for column in columns) - len(_GAP))
    for cells in zip(*(column.cells for column in columns), strict=True):
        folded = [column.fold(cell) for column, cell in zip(columns, cells, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            yield _GAP.join(column.pad(part) for column, part in zip(columns, parts, strict=True))


def _wrap(text: str, width: int) -> list[str]:
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text, max(width, 20), subsequent_indent=indent) or [""]


def markdown(content: Document) -> str:
    parts = []
    for table in content.tables:
        rule = ["---:" if numeric else "---" for numeric in table.numeric]
        body = [_pipes(map(escape_markdown, table.headers)), _pipes(rule)]
        body += [_pipes(map(escape_markdown, line)) for line in table.cells]
        parts.append(f"### {escape_markdown(table.title)}\n\n" + "\n".join(body))
    parts.append("\n".join(f"- {escape_markdown(note.strip())}" for note in content.notes))
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", clean(text)).replace("&", "&amp;").replace("<", "&lt;")


def latex(content: Document) -> str:
    """Tables for the booktabs package; the notes are comments."""
    parts = [f"% {clean(note)}" for note in content.notes]
    for table in content.tables:
        parts += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{escape_latex(table.title)}}}",
            f"\\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in table.numeric)}}}",
            "\\toprule",
            *_latex_rows([table.headers]),
            "\\midrule",
            *_latex_rows(table.cells),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _latex_rows(lines: Sequence[Sequence[str]]) -> list[str]:
    return [" & ".join(map(escape_latex, line)) + " \\\\" for line in lines]


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "±": "$\\pm$",
    "–": "--",
    "·": "$\\cdot$",
    "✓": "$\\checkmark$",
    "✗": "$\\times$",
}


def escape_latex(text: str) -> str:
    """Text as LaTeX shows it, with no character left that means something there."""
    return "".join(_LATEX.get(character, character) for character in clean(text))


def tidy_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV; tuples of run ids become words."""
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns:
        texts = [" ".join(value) if isinstance(value, tuple) else value for value in frame[name]]
        frame = frame.assign(**{name: [_no_formula(clean(text)) for text in texts]})
    return str(frame.to_csv(index=False))


def _no_formula(text: str) -> str:
    """Spreadsheets run text that starts like a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def plain_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a frame for JSON, which has no NaN and no infinity."""
    return [
        {
            str(name): None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in line.items()
        }
        for line in frame.to_dict("records")
    ]


def _json(board: "Leaderboard", view: View) -> str:
    rows, _ = view_of(board, replace(view, metrics=[]))
    content = {
        "confidence": board.confidence,
        "cells": plain_records(tidy(board, view)),
        "notes": notes(board, rows),
        "failures": plain_records(board.failures()),
    }
    return json.dumps(content, indent=1, default=str) + "\n"
