"""Records that were met more than once: copies are held once; other content under the same id is a fault of all."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from subnetbench.harness.records.columns import Found, Texts
from subnetbench.harness.records.schema import score_columns

_ALLOWED = "an id of its own: another record has the same, with other content"


@dataclass(frozen=True)
class Repeated:
    """Masks over records (runs,): `copies` of earlier ones, and those whose id stands for `contradictory` contents."""

    copies: np.ndarray
    contradictory: np.ndarray

    def found(self, runs: pa.Table) -> Found:
        """The contradictory ones as faults."""
        rows = np.flatnonzero(self.contradictory)
        return Found.alike(rows, "record_id", Texts.of(runs["record_id"]).take(rows), _ALLOWED)


def repeated(runs: pa.Table, scores: pa.Table, among: np.ndarray) -> Repeated:
    """Compare those records of a mask that share an id: all columns that were read, but for the file, and all scores."""
    copies, contradictory = np.zeros(len(runs), bool), np.zeros(len(runs), bool)
    rows = np.flatnonzero(among)
    _, first_of, which = np.unique(Texts.of(runs["record_id"]).codes[rows], return_index=True, return_inverse=True)
    again = np.flatnonzero(first_of[which] != np.arange(len(rows)))
    if len(again):
        some, first = rows[again], rows[first_of[which[again]]]
        other = _runs_differ(runs, some, first) | _scores_differ(scores, some, first)
        wrong = np.isin(which, which[again[other]])
        contradictory[rows[wrong]] = True
        copies[some] = True
    return Repeated(copies & ~contradictory, contradictory)


def _runs_differ(runs: pa.Table, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    differ = np.zeros(len(some), bool)
    for name in runs.column_names:
        if name != "file":
            codes = _codes(runs[name])
            differ |= codes[some] != codes[others]
    return differ


def _scores_differ(scores: pa.Table, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    run = scores["run"].to_numpy()
    rows = np.flatnonzero(np.isin(run, np.concatenate([some, others])))
    columns = [_codes(scores[name].take(rows)) for name in score_columns()]
    order = np.lexsort([*columns[::-1], run[rows]])
    content = np.stack([column[order] for column in columns], axis=1)
    owner = run[rows][order]
    first, second = ([_part(content, owner, at) for at in rows.tolist()] for rows in (some, others))
    return np.array([not np.array_equal(x, y) for x, y in zip(first, second, strict=True)], bool)


def _part(content: np.ndarray, owner: np.ndarray, run: int) -> np.ndarray:
    return content[np.searchsorted(owner, run, "left") : np.searchsorted(owner, run, "right")]


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Equal numbers for equal values, nulls and values that are not finite included."""
    array = column.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode(null_encoding="encode")
    return np.asarray(array.indices.to_numpy(zero_copy_only=False).astype(np.int64))
