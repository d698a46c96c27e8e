"""Columns of records as arrays: what the checks of their content work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

MAX_DESCRIBED = 10_000
"""Most faults of one kind that are described one by one."""


@dataclass(frozen=True)
class Texts:
    """A column of strings: `values[codes[i]]` is the text of row i. Some of the `values` may not be used."""

    codes: np.ndarray
    values: list[str]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Self:
        """The texts of an Arrow column without nulls, dictionary-encoded or plain."""
        array = column.combine_chunks()
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        return cls(array.indices.to_numpy().astype(np.int64), array.dictionary.to_pylist())

    def where(self, holds: Callable[[str], bool]) -> np.ndarray:
        """A mask (rows,) of the texts for which `holds` is true; it is called once for each value."""
        mask: np.ndarray = np.fromiter(map(holds, self.values), bool, len(self.values))[self.codes]
        return mask

    def take(self, rows: np.ndarray) -> list[str]:
        """The texts of some rows."""
        return [self.values[code] for code in self.codes[rows]]


@dataclass(frozen=True)
class Found:
    """Faults of one kind. `run` (faults,) are rows of the table of runs; the other three describe the first of them,
    `MAX_DESCRIBED` at most."""

    run: np.ndarray
    field: Sequence[str]
    value: Sequence[str | float]
    allowed: Sequence[str]
    of_value: bool = False
    """The fault is of one value alone, which listings leave out and count; the record stays."""

    @classmethod
    def alike(cls, run: np.ndarray, field: str, value: Sequence[str | float], allowed: str) -> Self:
        """Faults of one column with one rule."""
        return cls(run, [field] * len(run), value, [allowed] * len(run))

    @classmethod
    def each(cls, faults: Sequence[tuple[int, str, str | float, str]]) -> Self:
        """Faults that were found one by one: run, field, value, what is allowed."""
        run = np.array([fault[0] for fault in faults], np.int64)
        return cls(run, [f[1] for f in faults], [f[2] for f in faults], [f[3] for f in faults])


def score_names(scores: pa.Table, rows: np.ndarray) -> list[str]:
    """What some scores are of, in words: `top1 of full on test`."""
    names = ("metric", "variant", "gallery_variant", "split")
    columns = [scores[name].take(rows).to_pylist() for name in names]
    words = ("", " of ", " in ", " on ")
    return [
        "".join(f"{word}{text}" for word, text in zip(words, texts, strict=True) if text)
        for texts in zip(*columns, strict=True)
    ]
