"""Tables of text with notes, before they are written in a format; and numbers as text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """A table of text. `numeric` says which columns are aligned to the right."""

    title: str
    headers: list[str]
    numeric: list[bool]
    cells: list[list[str]]


@dataclass(frozen=True)
class Document:
    """All that is printed of a leaderboard or a comparison: its tables, and the notes that explain them."""

    tables: list[Table]
    notes: list[str]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    header: str
    cells: list[str]
    numeric: bool = False

    @classmethod
    def of(cls, header: str, values: Iterable[object], *, numeric: bool = False) -> "Column":
        """A column of any values, as text."""
        return cls(header, [str(value) for value in values], numeric)


def table_of(title: str, columns: Sequence[Column]) -> Table:
    """A table of some columns, all of one length."""
    cells = [list(line) for line in zip(*(column.cells for column in columns), strict=True)]
    return Table(title, [column.header for column in columns], [column.numeric for column in columns], cells)


def number(value: float, half_width: float = 0.0) -> str:
    """A value with its interval: `0.8123 ± 0.0041`, `4.30 M`, `12.30 ± 0.52`; no interval where it is NaN, 0, or
    no more than rounding."""
    if np.isnan(value):
        return "–"
    factor, suffix = next((scale[1:] for scale in _SCALES if abs(value) >= scale[0]), (1.0, ""))
    scaled, half = value / factor, half_width / factor if half_width > 1e-9 * abs(value) else 0.0
    decimals = 4 if abs(value) < 10 else 0 if float(value).is_integer() and not suffix and not half > 0 else 2
    interval = f" ± {half:.{decimals}f}" if half > 0 else ""
    return f"{scaled:.{decimals}f}{interval}{suffix}"


_SCALES = ((1e12, 1e12, " T"), (1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k"))
