"""Texts and numbers of others, made safe and short for the report; typed content as plain JSON."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np

from subnetbench.harness.leaderboard.markup import clean

_LONGEST_LINE = 400

T = TypeVar("T")


class Written:
    """Base of content types that are written as JSON otherwise than field by field."""

    def to_json(self) -> object:
        raise NotImplementedError


class Numbers(Written):
    """Base of content types without any text: cleaning passes over them, because a report holds many thousands."""


def clean_lines(text: str, lines: int) -> str:
    """The last lines of a text, without control characters, each cut to a length that can be read."""
    last = text.replace("\t", "    ").splitlines()[-lines:] if lines else []
    return "\n".join(clean(line[:_LONGEST_LINE]) for line in last)


def cleaned(value: T) -> T:
    """The same mappings, lists and dataclasses with all texts cleaned line by line, and None for infinities and NaN.

    A tuple is taken to hold finite numbers and None only and stays as it is: curves are most of a report.
    """
    return cast(T, _cleaned(value))


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(clean(line) for line in value.splitlines())
    if isinstance(value, dict):
        return {_cleaned(str(name)): _cleaned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Numbers):
        changed: dict[str, Any] = {  # open: the fields of any dataclass
            field.name: _cleaned(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **changed)
    return value


def plain(value: object) -> object:
    """Dataclasses within mappings and lists as plain JSON: by their own `to_json`, or else field by field."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Written):
        return value.to_json()
    return fields_of(value) if dataclasses.is_dataclass(value) else value


def fields_of(value: object, leave_out: Sequence[str] = ()) -> dict[str, object]:
    """The fields of a dataclass as plain JSON."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"not a dataclass: {type(value).__name__}")
    names = [field.name for field in dataclasses.fields(value) if field.name not in leave_out]
    return {name: plain(getattr(value, name)) for name in names}


def significant_row(values: Sequence[float], digits: int) -> tuple[float | None, ...]:
    """The same as `significant` of many numbers at once."""
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
