"""Texts and numbers of others, made safe and short for the report."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from subnetbench.harness.leaderboard.formats import clean

_LONGEST_LINE = 400


def clean_lines(text: str, lines: int) -> str:
    """The last lines of a text, without control characters, each cut to a length that can be read."""
    last = text.replace("\t", "    ").splitlines()[-lines:] if lines else []
    return "\n".join(clean(line[:_LONGEST_LINE]) for line in last)


def cleaned(value: Any) -> Any:
    """Plain JSON with all its texts cleaned line by line, and with None for numbers that are not finite.

    A tuple is taken to hold finite numbers and None only and stays as it is: curves are most of a report.
    """
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(clean(line) for line in value.splitlines())
    if isinstance(value, dict):
        return {cleaned(str(name)): cleaned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def significant_row(values: Sequence[float], digits: int) -> tuple[float | None, ...]:
    """The same of many numbers at once."""
    row = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        power = np.floor(np.log10(np.abs(row))) - digits + 1
        power = np.where(np.isfinite(power), power, 0.0)
        # Dividing by a whole power of ten gives the float nearest to the decimal, which is printed short.
        small = np.round(row * 10.0**-power) / 10.0**-power
        rounded = np.where(power < 0, small, np.round(row / 10.0**power) * 10.0**power)
    if np.isfinite(rounded).all():
        return tuple(rounded.tolist())
    return tuple(value if math.isfinite(value) else None for value in rounded.tolist())


def significant(value: float, digits: int = 7) -> float | None:
    """A number with so many significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
