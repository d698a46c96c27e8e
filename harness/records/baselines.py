"""Whether the trivial baselines in records can be true.

A trivial baseline is a property of the data: all records of one task and data digest must state the same. Where they
do not, the value of most records is taken for the right one; where none has most, no one knows, and all are faulty.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.metrics import known_metric
from subnetbench.harness.records.columns import MAX_DESCRIBED, Found, Texts, score_names
from subnetbench.harness.records.record import TRIVIAL, is_trivial

_TOLERANCE = 1e-6
# Neighbours are ranked and linear models are solved in floating point: another machine may round otherwise.
_TOLERANCE_OF_PIXELS = 0.01
_COUNTED = ("chance", "constant")
"""Baselines that are counted from the labels."""


@dataclass(frozen=True)
class _Baselines:
    """The scores that are trivial baselines; all arrays are (baselines,).

    `row` and `run` are rows of the tables of scores and runs, `key` is the same for what must have one value.
    """

    row: np.ndarray
    run: np.ndarray
    record: np.ndarray
    key: np.ndarray
    value: np.ndarray
    tolerance: np.ndarray
    impossible: np.ndarray

    def found(self, at: np.ndarray, scores: pa.Table, allowed: list[str]) -> Found:
        shown = at[:MAX_DESCRIBED]
        return Found(self.run[at], score_names(scores, self.row[shown]), self.value[shown].tolist(), allowed)


def baseline_faults(runs: pa.Table, scores: pa.Table, invalid: np.ndarray) -> Iterator[Found]:
    """Trivial baselines that are impossible, or differ from those of the same data in other records.

    `invalid` (runs,) marks the records with faults; whoever takes what this yields keeps it up to date, because what an
    invalid record states about the data does not count.
    """
    if not {"task", "data_digest", "record_id"} <= set(runs.column_names):
        return
    trivial = Texts.of(scores["variant"]).where(is_trivial) & ~scores["value"].is_null().to_numpy()
    if not trivial.any():
        return
    baselines = _collect(runs, scores, np.flatnonzero(trivial))
    at = np.flatnonzero(baselines.impossible)
    yield baselines.found(at, scores, ["above 0: without learning, some answers are right"] * len(at))
    known = Texts.of(runs["data_digest"]).where(bool)
    counting = np.flatnonzero(~invalid[baselines.run] & np.isfinite(baselines.value) & known[baselines.run])
    if len(counting):
        yield _contradictions(baselines, scores, counting)


def _collect(runs: pa.Table, scores: pa.Table, row: np.ndarray) -> _Baselines:
    run = scores["run"].to_numpy()[row]
    value = scores["value"].to_numpy()[row]
    of_run = [Texts.of(runs[name]) for name in ("task", "data_digest")]
    of_score = [Texts.of(scores[name]) for name in ("metric", "variant", "split")]
    key = np.zeros(len(row), np.int64)
    for column, rows in (*((column, run) for column in of_run), *((column, row) for column in of_score)):
        # Made dense after each column, so that the product of all cannot overflow.
        key = np.unique(key * len(column.values) + column.codes[rows], return_inverse=True)[1]
    task, metric = of_run[0].codes[run], of_score[0].codes[row]
    counted = np.array([name.removeprefix(f"{TRIVIAL}:") in _COUNTED for name in of_score[1].values], bool)
    named = np.array([name != TRIVIAL for name in of_score[1].values], bool)[of_score[1].codes[row]]
    retrieval = np.array([name == "retrieval" for name in of_run[0].values], bool)[task]
    # Without a name it is of raw pixels in retrieval, and counted elsewhere.
    pixels = np.where(named, ~counted[of_score[1].codes[row]], retrieval)
    known = [known_metric(name) for name in of_score[0].values]
    share = np.array([m is not None and m.high == 1 for m in known], bool)[metric]
    gain = np.array([m is not None and m.higher_is_better is True for m in known], bool)[metric]
    average = retrieval & np.array([name == "map" for name in of_score[0].values], bool)[metric]
    # By the first k of a ranking of pixels, or by a few neighbours, a small collection may give nothing away.
    return _Baselines(
        row,
        run,
        Texts.of(runs["record_id"]).codes[run],
        key,
        value,
        np.where(pixels & share, _TOLERANCE_OF_PIXELS, _TOLERANCE * np.maximum(1, np.abs(value))),
        share & gain & (value <= 0) & (~pixels | average),
    )


def _contradictions(baselines: _Baselines, scores: pa.Table, counting: np.ndarray) -> Found:
    order = counting[np.lexsort((baselines.value[counting], baselines.key[counting]))]
    key, value = baselines.key[order], baselines.value[order]
    start = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    end = np.append(start[1:], len(order))
    differ = ~(value[end - 1] - value[start] <= baselines.tolerance[order[start]])
    wrong, allowed = [np.zeros(0, np.int64)], list[str]()
    for group in np.flatnonzero(differ):
        rows, text = _minority(baselines, order[start[group] : end[group]])
        wrong.append(rows)
        allowed += [text] * len(rows)
    return baselines.found(np.concatenate(wrong), scores, allowed)


def _minority(baselines: _Baselines, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Of baselines that must be equal, ascending by value, those that are not the value of most records."""
    values, tolerance = baselines.value[rows], float(baselines.tolerance[rows[0]])
    distinct = np.unique(values)
    pairs = np.unique(np.stack([np.searchsorted(distinct, values), baselines.record[rows]]), axis=1)
    before = np.append(0, np.cumsum(np.bincount(pairs[0], minlength=len(distinct))))
    first = np.searchsorted(distinct, distinct - tolerance, "left")
    last = np.searchsorted(distinct, distinct + tolerance, "right")
    support = before[last] - before[first]
    right = distinct[support.argmax()]
    if (support[np.abs(distinct - right) > tolerance] == support.max()).any():
        return rows, "one value for this data; records contradict each other, and none of the values has most records"
    text = f"{right:.6g}, as in {support.max()} records of this data"
    return rows[np.abs(values - right) > tolerance], text
