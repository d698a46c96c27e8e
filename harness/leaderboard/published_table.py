"""Published values as tables for people: those that can be compared, and those that cannot, with the reason."""

from collections.abc import Sequence

from subnetbench.harness.leaderboard.beside import Beside, PublishedLines
from subnetbench.harness.leaderboard.document import Column, Table, number, table_of

_MOST = 40
"""Lines of values that are not comparable: there may be one for each row."""


def published_tables(printed: PublishedLines) -> tuple[list[Table], list[str]]:
    """A table of the comparable values and one of the others, where there are any, and the notes below them."""
    tables, notes = [], list(printed.notes)
    if lines := printed.comparable:
        difference = Column("difference", [f"{line.difference:+.4f}" for line in lines], numeric=True)
        tables.append(table_of("Published numbers", [*_names(lines), *_values(lines), difference, *_origin(lines)]))
    if others := printed.others:
        lines = others[:_MOST]
        reasons = Column("why not", [line.reason for line in lines])
        columns = [*_names(lines), *_values(lines), reasons, *_origin(lines)]
        tables.append(table_of("Published numbers that are not comparable", columns))
    if len(printed.others) > _MOST:
        notes.append(f"{len(printed.others) - _MOST:,} more published values that are not comparable: --format json.")
    return tables, notes


def _names(lines: Sequence[Beside]) -> list[Column]:
    names = ("method", "dataset", "network", "variant", "config", "metric")
    return [Column(name, cells) for name in names if any(cells := [str(getattr(line, name)) for line in lines])]


def _values(lines: Sequence[Beside]) -> list[Column]:
    return [
        Column("measured", [number(line.measured, line.half_width or 0.0) for line in lines], numeric=True),
        Column("published", [_range(line) for line in lines], numeric=True),
    ]


def _origin(lines: Sequence[Beside]) -> list[Column]:
    return [
        Column("verified", [_verified(line) for line in lines]),
        Column("as", [line.label for line in lines]),
        Column("source", [line.source for line in lines]),
    ]


def _verified(line: Beside) -> str:
    return ("yes" if line.verified else "no") if isinstance(line.verified, bool) else str(line.verified)


def _range(line: Beside) -> str:
    return number(line.published) if line.low == line.high else f"{number(line.low)} to {number(line.high)}"
