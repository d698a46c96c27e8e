"""Tables as text for a terminal of a given width.

Laid out here and not by rich, which takes a minute for the tables of a million scores.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

from rich.cells import cell_len, chop_cells

from subnetbench.harness.leaderboard.document import Document
from subnetbench.harness.leaderboard.markup import clean

_NARROWEST_NAME, _WIDEST_NAME = 10, 40
_GAP = "  "


def terminal(content: Document, width: int = 120) -> str:
    """Tables that fit `width`: where a table is wider, its numbers continue below, beside the same names."""
    lines: list[str] = []
    for table in content.tables:
        lines += [*_wrap(clean(table.title), width), ""]
        names = len(table.numeric) - sum(table.numeric)
        widest = max(_NARROWEST_NAME, min(_WIDEST_NAME, width * 2 // 3 // max(names, 1)))
        columns = [
            _Cells(
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


@dataclass(frozen=True)
class _Cells:
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
        """The text on lines of this width, between words where it has narrow characters only."""
        if cell_len(text) <= self.width:
            return [text]
        return textwrap.wrap(text, self.width) if text.isascii() else chop_cells(text, self.width)


def _pieces(columns: list[_Cells], width: int) -> list[list[_Cells]]:
    """The columns of each part of a table: all names and what stands before the first, as the rank; and as many numbers
    as fit beside them."""
    first = next((i for i, column in enumerate(columns) if not column.numeric), 0)
    names = [column for i, column in enumerate(columns) if not column.numeric or i < first]
    room = width - sum(column.width + len(_GAP) for column in names)
    pieces: list[list[_Cells]] = [[]]
    taken = 0
    for column in columns:
        if column not in names:
            if taken + column.width > room and pieces[-1]:
                pieces.append([])
                taken = 0
            pieces[-1].append(column)
            taken += column.width + len(_GAP)
    return [[*names, *piece] for piece in pieces]


def _layout(columns: list[_Cells]) -> Iterator[str]:
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
