"""A leaderboard as text: terminal, Markdown, LaTeX, CSV or JSON; or as a parquet file.

Names, configs and errors come from files that anybody can write. They are shown as text: without control
characters, and escaped for the format.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from subnetbench.harness.errors import UserError, unknown
from subnetbench.harness.leaderboard.frames import View, tidy, view_of
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import Figure
from subnetbench.harness.leaderboard.tables import Document, Table, document

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


def write(board: "Leaderboard", path: Path | str, view: View | None = None, published: Sequence[Figure] = ()) -> None:
    """Write the leaderboard to a file in the format that its suffix names: .parquet, .csv, .json, .md, .tex, .txt."""
    from subnetbench.harness.records.record import publish, publish_table

    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow as pa

        table = pa.Table.from_pandas(tidy(board, view or View()), preserve_index=False)
        publish_table(table, path, overwrite=True)
    elif path.suffix in _SUFFIXES:
        text = render(board, _SUFFIXES[path.suffix], view, published)
        publish(path, lambda file: file.write(text.encode()), overwrite=True)
    else:
        raise UserError("no such format", field="out", value=str(path), allowed=", ".join([".parquet", *_SUFFIXES]))


def clean(text: str) -> str:
    """The text on one line, without characters that would move a cursor or turn the direction of writing."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))


def terminal(content: Document, width: int = 120) -> str:
    """Tables that fit `width`: where a table is wider, its figures go on below, beside the same names."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    printed = StringIO()
    console = Console(file=printed, width=width, highlight=False, color_system=None)
    for table in content.tables:
        console.print(Text(clean(table.title)))
        for columns in _pieces(table, width):
            grid = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
            for i in columns:
                header = Text(clean(table.headers[i]).replace("_", "\n" if table.numeric[i] else "_"))
                if table.numeric[i]:
                    grid.add_column(header, justify="right", no_wrap=True)
                else:
                    grid.add_column(header, overflow="fold", max_width=_WIDEST_NAME)
            for line in table.cells:
                grid.add_row(*(Text(clean(line[i])) for i in columns))
            console.print(grid)
    for note in content.notes:
        console.print(Text(clean(note)))
    return printed.getvalue()


_WIDEST_NAME = 40


def _pieces(table: Table, width: int) -> list[list[int]]:
    """The columns of each part of a table: the rank and all names, and as many figures as fit beside them."""
    lengths = [
        max([max(map(len, header.split("_") if numeric else [header])), *(len(line[i]) for line in table.cells)])
        for i, (header, numeric) in enumerate(zip(table.headers, table.numeric, strict=True))
    ]
    names = [i for i, header in enumerate(table.headers) if not table.numeric[i] or header == "rank"]
    taken = sum(min(lengths[i], _WIDEST_NAME) + 3 for i in names)
    pieces: list[list[int]] = [[]]
    room = width - taken
    for i in sorted(set(range(len(lengths))) - set(names)):
        if lengths[i] + 3 > room and pieces[-1]:
            pieces.append([])
            room = width - taken
        pieces[-1].append(i)
        room -= lengths[i] + 3
    return [sorted([*names, *piece]) for piece in pieces]


def markdown(content: Document) -> str:
    parts = []
    for table in content.tables:
        rule = ["---:" if numeric else "---" for numeric in table.numeric]
        body = [_pipes(map(_escape_markdown, table.headers)), _pipes(rule)]
        body += [_pipes(map(_escape_markdown, line)) for line in table.cells]
        parts.append(f"### {_escape_markdown(table.title)}\n\n" + "\n".join(body))
    parts.append("\n".join(f"- {_escape_markdown(note.strip())}" for note in content.notes))
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", clean(text)).replace("&", "&amp;").replace("<", "&lt;")


def latex(content: Document) -> str:
    """Tables for the booktabs package; the notes are comments."""
    parts = [f"% {clean(note)}" for note in content.notes]
    for table in content.tables:
        parts += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_escape_latex(table.title)}}}",
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
    return [" & ".join(map(_escape_latex, line)) + " \\\\" for line in lines]


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


def _escape_latex(text: str) -> str:
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
        {str(name): None if isinstance(value, float) and not math.isfinite(value) else value for name, value in line.items()}
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
