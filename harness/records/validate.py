"""Whether what records say can be true: ranges, names, hashes, trivial baselines.

`check.py` sees to the form of files; here records that have it are checked by their content, a whole column at a time,
because a leaderboard opens thousands of files. `read_records` reads all `CHECKED` columns whatever it was asked for, so
that the same records are left out everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.metrics import known_metric
from subnetbench.harness.core.tasks import TASKS
from subnetbench.harness.records.baselines import baseline_faults
from subnetbench.harness.records.columns import MAX_DESCRIBED, Found, Texts, score_names
from subnetbench.harness.records.duplicates import repeated
from subnetbench.harness.records.hashes import config_faults, spec_faults
from subnetbench.harness.records.protocols import protocol_faults
from subnetbench.harness.records.record import STATUSES
from subnetbench.harness.records.schema import PRECISIONS, RUN_COSTS
from subnetbench.harness.records.standing import DERIVED_TEXTS, STANDING_COLUMNS, standing_faults

SPLITS = ("", "train", "validation", "test")
_TOLERANCE = 1e-6  # a mean of many ones, in single precision, may exceed 1 by as much
_NAMES = {"status": STATUSES, "task": TASKS, "precision": (*PRECISIONS, "no", "fp16")}
_LEAST = {
    **dict.fromkeys(("schema_version", "schema_meaning", "attempt", "world_size", "threads"), 1),
    **dict.fromkeys(("seed", "trial", "n_requeue", *RUN_COSTS), 0),
}
CHECKED = frozenset(
    (
        *("record_id", "run_id", "method", "dataset", "protocol", "data_digest"),
        *("config_hash", "config_json", "spec_json", "finished_at", *_NAMES, *_LEAST),
        *STANDING_COLUMNS,
        *DERIVED_TEXTS,
    )
)
"""The run-level columns that the checks look at."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing in a record that cannot be so.

    `field` is a column, or the score in question (`top1 of full on test`); `value` is what stands there, and `allowed`
    says what may. `run_id` is empty where the file as a whole cannot be read.
    """

    path: Path
    run_id: str
    field: str
    value: str | float | None
    allowed: str

    def __str__(self) -> str:
        run = f"{self.run_id}: " if self.run_id else ""
        text = f"{self.path}: {run}{self.field[:200]}: {_short(self.value)} (allowed: {self.allowed})"
        return "".join(character if character.isprintable() else "?" for character in text)

    def to_json(self) -> dict[str, str | float | None]:
        """The fields as plain JSON; a value that is not finite is a text."""
        value = self.value
        if isinstance(value, float) and not np.isfinite(value):
            value = str(value)
        return {
            "path": str(self.path),
            "run_id": self.run_id,
            "field": self.field,
            "value": value,
            "allowed": self.allowed,
        }


@dataclass(frozen=True)
class Findings:
    """The faults of many records: `invalid` (runs,) marks all records that have any; `MAX_DESCRIBED` are described.

    `copies` (runs,) marks valid records that repeat an earlier one.
    """

    invalid: np.ndarray
    copies: np.ndarray
    faults: tuple[Fault, ...] = ()
    not_finite: tuple[Fault, ...] = ()
    """Values that are not finite. Their records stay: a run that diverged must not vanish from its method's results."""


def find_faults(runs: pa.Table, scores: pa.Table) -> Findings:
    """Check records in the two tables of a `RecordSet`.

    Args:
        runs: One row a record: some run-level columns, `run_id` and `file` among them.
        scores: One row a score, with `run`, a row of `runs`.
    """
    invalid = np.zeros(len(runs), bool)
    if not len(runs):
        return Findings(invalid, invalid)
    faults: list[Fault] = []
    not_finite: list[Fault] = []
    for found in _checks(runs, scores, invalid):
        if found.of_value:
            not_finite += _described(found, runs, MAX_DESCRIBED)
        elif len(found.run):
            invalid[found.run] = True
            faults += _described(found, runs, MAX_DESCRIBED - len(faults))
    repeat = repeated(runs, scores, ~invalid)
    invalid[repeat.contradictory] = True
    faults += _described(repeat.found(runs), runs, MAX_DESCRIBED - len(faults))
    return Findings(invalid, repeat.copies, _in_order(faults), _in_order(not_finite))


def _in_order(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: (str(fault.path), fault.run_id)))


def _checks(runs: pa.Table, scores: pa.Table, invalid: np.ndarray) -> Iterator[Found]:
    yield from _names(runs)
    yield from _numbers(runs)
    yield from _splits(scores)
    yield from _ranges(scores)
    yield from config_faults(runs)
    yield from spec_faults(runs)
    yield from standing_faults(runs)
    yield from protocol_faults(runs, invalid)
    yield from baseline_faults(runs, scores, invalid)


def _described(found: Found, runs: pa.Table, most: int) -> Iterator[Fault]:
    rows = found.run[: max(most, 0)]
    files, names = (runs[name].take(rows).to_pylist() for name in ("file", "run_id"))
    for i, (file, run_id) in enumerate(zip(files, names, strict=True)):
        yield Fault(
            path=Path(file), run_id=run_id, field=found.field[i], value=found.value[i], allowed=found.allowed[i]
        )


def _names(runs: pa.Table) -> Iterator[Found]:
    for name, allowed in _NAMES.items():
        if name in runs.column_names:
            column = Texts.of(runs[name])
            rows = np.flatnonzero(~column.where(set(allowed).__contains__))
            yield Found.alike(rows, name, column.take(rows), ", ".join(allowed))
    if "data_digest" in runs.column_names:
        digest = Texts.of(runs["data_digest"])
        rows = np.flatnonzero(~digest.where(str.isprintable))
        yield Found.alike(rows, "data_digest", digest.take(rows), "printable characters")


def _numbers(runs: pa.Table) -> Iterator[Found]:
    for name, least in _LEAST.items():
        if name not in runs.column_names:
            continue
        column = runs[name]
        known = ~column.is_null().to_numpy()
        values = column.to_numpy()
        rows = np.flatnonzero(known & ~((values >= least) & (values < inf)))
        yield Found.alike(rows, name, values[rows].tolist(), f"a finite number, at least {least}")


def _splits(scores: pa.Table) -> Iterator[Found]:
    column = Texts.of(scores["split"])
    rows = np.flatnonzero(~column.where(set(SPLITS).__contains__))
    yield Found.alike(scores["run"].to_numpy()[rows], "split", column.take(rows), ", ".join(filter(None, SPLITS)))


def _ranges(scores: pa.Table) -> Iterator[Found]:
    """Values of known metrics outside their range; a null is a value that is not known, and no fault."""
    metrics = Texts.of(scores["metric"])
    known = [known_metric(name) for name in metrics.values]
    low = np.array([-inf if metric is None else metric.low - _TOLERANCE for metric in known])
    high = np.array([inf if metric is None else metric.high + _TOLERANCE for metric in known])
    checked = np.array([metric is not None for metric in known], bool)
    values = scores["value"].to_numpy()
    sound = (values >= low[metrics.codes]) & (values <= high[metrics.codes]) & np.isfinite(values)
    rows = np.flatnonzero(~sound & checked[metrics.codes])
    if len(rows) and scores["value"].null_count:
        rows = rows[~scores["value"].is_null().to_numpy()[rows]]
    finite = np.isfinite(values[rows])
    for some, of_value in ((rows[finite], False), (rows[~finite], True)):
        shown = some[:MAX_DESCRIBED]
        allowed = [f"finite, {metric.allowed}" if (metric := known[code]) else "" for code in metrics.codes[shown]]
        run = scores["run"].to_numpy()[some]
        yield Found(run, score_names(scores, shown), values[shown].tolist(), allowed, of_value)


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
