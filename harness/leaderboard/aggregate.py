"""From records to cells: which runs count, which scores belong together, and their mean and spread over seeds.

Everything here is arrays of integer codes, so that a million rows take well under a second; names come back when
a frame is made. What the rules mean to a user is described in `Leaderboard`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.metrics import depends_on_machine
from subnetbench.harness.leaderboard.codes import Codes, Keys, combine, compress, last_rows, oldest_first
from subnetbench.harness.leaderboard.machines import Machines, named
from subnetbench.harness.leaderboard.spending import spending
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.records.record import is_trivial
from subnetbench.harness.records.schema import RUN_COSTS

IDENTITY = ("task", "dataset", "method", "network", "preset", "tuned", "config_hash")
"""The configuration of a run, but for its seed."""
CIRCUMSTANCES = ("protocol", "data_digest", "budget", "schema_meaning")
"""Known once a run has loaded its data; empty for runs that failed before."""
EXPERIMENT = (*IDENTITY, *CIRCUMSTANCES)
"""What was tried. Runs that agree in all of these are the same experiment, perhaps by other code or on other weights."""
FOUNDATIONS = ("code_digest", "files_digest", "numerics", "spending")
"""What scores stand on besides. Empty in a record that does not know, and unknown is a value of its own."""
MACHINE = "machine"
"""On what a run was measured, in words, where runs of each machine are rows of their own; else empty."""
GROUP = (*EXPERIMENT, *FOUNDATIONS, MACHINE)
"""Runs that agree in all of these differ in nothing but their seeds; only such runs are averaged."""

DERIVED: dict[str, Callable[[pa.Table], Codes]] = {
    "spending": lambda runs: spending(runs, EXPERIMENT),
    MACHINE: lambda runs: named(runs, MACHINE),
}
"""How names of `GROUP` that are no column of a record follow from `RecordSet.runs`."""

UNFINISHED = ("failed", "pruned", "partial")


@dataclass
class Tally:
    """How many records were read, and how many of them do not count, by reason."""

    records: int
    trials: int = 0
    superseded: int = 0
    not_finite: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Runs:
    """Which records count and what they repeat.

    `group` (records,) is a row of `groups`, or -1 for a record that does not count; `finished` and `seed`
    (records,) go with it. `groups` has one array (groups,) for each name in `GROUP`; `latest` (groups,) orders them by
    the time of their latest run.
    """

    group: np.ndarray
    groups: dict[str, np.ndarray]
    latest: np.ndarray
    finished: np.ndarray
    status: np.ndarray
    seed: np.ndarray

    def count(self, status: str) -> np.ndarray:
        """How many counting records of each group have this status."""
        return np.bincount(self.group[(self.group >= 0) & (self.status == status)], minlength=len(self))

    def __len__(self) -> int:
        return len(self.groups["method"])


@dataclass(frozen=True)
class Cells:
    """Scores by row and metric.

    `row` and `metric` (cells,) say where a cell belongs. `values`, `seeds` and `runs` (scores,) are sorted by
    cell and seed; `start` (cells + 1,) cuts them. `apart` (cells,) marks times of several machines: their mean is NaN.
    """

    row: np.ndarray
    metric: np.ndarray
    start: np.ndarray
    values: np.ndarray
    seeds: np.ndarray
    runs: np.ndarray
    apart: np.ndarray

    @cached_property
    def count(self) -> np.ndarray:
        return np.diff(self.start)

    @cached_property
    def mean(self) -> np.ndarray:
        return np.where(self.apart, np.nan, self._sums(self.values) / self.count)

    @cached_property
    def std(self) -> np.ndarray:
        """Standard deviation with ddof = 1; NaN for one value."""
        squares = self._sums((self.values - np.repeat(self.mean, self.count)) ** 2)
        return np.sqrt(squares / np.where(self.count > 1, self.count - 1, np.nan))

    @cached_property
    def owner(self) -> np.ndarray:
        """The cell of each value."""
        return np.repeat(np.arange(len(self.row)), self.count)

    def part(self, cell: int) -> slice:
        return slice(int(self.start[cell]), int(self.start[cell + 1]))

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.start[:-1]) if len(self.row) else np.zeros(0)


@dataclass(frozen=True)
class Rows:
    """What cells are of: a variant of a group's network on a split; all arrays are (rows,).

    Costs have an empty split, those of the whole run an empty variant too: `costs` (rows, 2) are the rows that
    hold the costs of a row's variant and of its run, -1 where there are none. `origin` is the method of the input whose
    own network a row is of, else empty; what the run cost is no cost of such a row.
    """

    group: np.ndarray
    split: np.ndarray
    variant: np.ndarray
    gallery_variant: np.ndarray
    trivial: np.ndarray
    origin: np.ndarray
    costs: np.ndarray

    def __len__(self) -> int:
        return len(self.group)


def choose_runs(records: RecordSet, tally: Tally, *, trials: bool) -> Runs:
    """Choose the records that count: of one config and seed the latest finished one, or else the latest.

    `trials` keeps the trials of searches, which are left out otherwise.
    """
    runs = records.runs
    codes = {name: _codes_of(runs, name) for name in (*GROUP, "seed", "status")}
    status = codes["status"].decode()
    finished = status == "finished"
    allowed = np.ones(len(runs), bool) if trials else runs["trial"].is_null().to_numpy()
    order = oldest_first(runs["finished_at"], runs["attempt"])
    configured = combine([codes[name] for name in (*IDENTITY, "seed")])
    performed = combine([configured, *(codes[name] for name in (*CIRCUMSTANCES, *FOUNDATIONS, MACHINE))])
    counts = _last_of_each(performed, allowed & finished, order)
    replaced = _replaced(codes["code_digest"], configured, allowed & finished, order)
    counts |= _last_of_each(configured, allowed & ~finished & ~replaced, order)
    tally.trials = int((~allowed).sum())
    tally.superseded = int(allowed.sum() - counts.sum())

    group = _groups(codes, counts, finished)
    counting = np.flatnonzero(counts)
    ordered = counting[np.argsort(finished[counting], kind="stable")]  # only finished runs surely know their data
    used = last_rows(Keys(group.codes[ordered], group.size)) if len(ordered) else np.zeros(0, np.int64)
    example = ordered[used]
    number = np.full(len(runs), -1)
    number[counts] = compress(group.codes[counts], group.size)[1]
    columns = {name: codes[name].decode(example) for name in GROUP}
    latest = np.full(len(used), -1)
    latest[number[order[counts[order]]]] = np.flatnonzero(counts[order])  # the last assignment to an index wins
    return Runs(number, columns, latest, finished & counts, status, codes["seed"].decode())


def _codes_of(runs: pa.Table, name: str) -> Codes:
    return DERIVED[name](runs) if name in DERIVED else Codes.of(runs[name])


def _replaced(code: Codes, configured: Keys, finished: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Which records would be superseded by a finished one if they are unfinished: of the same config and seed, and
    later or of the same code. A finished run of older code does not make up for one that fails by now."""
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    latest = np.full(configured.size, -1)
    np.maximum.at(latest, configured.codes[finished], position[finished])
    coded = combine([configured, code])
    by_code = np.zeros(coded.size, bool)
    by_code[coded.codes[finished]] = True
    unknown = code.decode() == ""
    later = latest[configured.codes] > position
    return np.asarray(later | by_code[coded.codes] | (unknown & (latest[configured.codes] >= 0)))


def _last_of_each(keys: Keys, among: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows of `among` that are the last of their key in `order`, as a mask."""
    ordered = order[among[order]]
    chosen = np.zeros(len(keys.codes), bool)
    chosen[ordered[last_rows(Keys(keys.codes[ordered], keys.size))]] = True
    return chosen


def _groups(codes: dict[str, Codes], counts: np.ndarray, finished: np.ndarray) -> Keys:
    """The group of each record. An unfinished one may not know all that makes its group: it joins the finished runs of
    its config and code (of its config, if it does not know its code), if they are one group and what it knows agrees."""
    group = combine([codes[name] for name in GROUP])
    done = np.flatnonzero(counts & finished)
    example = np.full(group.size, -1)
    example[group.codes[done]] = done
    unknown = {name: codes[name].decode() == "" for name in ("data_digest", *FOUNDATIONS)}
    joined, open_ = group.codes.copy(), counts & ~finished
    for names, may in (((*IDENTITY, "code_digest"), True), (IDENTITY, unknown["code_digest"])):
        family = combine([codes[name] for name in names])
        pairs = np.unique(np.stack([family.codes[done], group.codes[done]]), axis=1)
        only = np.full(family.size, -1)
        only[pairs[0]] = pairs[1]
        only[np.bincount(pairs[0], minlength=family.size) != 1] = -1
        rows = np.flatnonzero(open_ & may & (only[family.codes] >= 0))
        like = example[only[family.codes[rows]]]
        same = {name: codes[name].codes[rows] == codes[name].codes[like] for name in (*CIRCUMSTANCES, *FOUNDATIONS)}
        agrees = unknown["data_digest"][rows] | np.all([same[name] for name in CIRCUMSTANCES], axis=0)
        agrees &= np.all([same[name] | unknown[name][rows] for name in FOUNDATIONS], axis=0)
        joined[rows[agrees]] = group.codes[like[agrees]]
        open_[rows[agrees]] = False
    return Keys(joined, group.size)


def collect(records: RecordSet, runs: Runs, tally: Tally) -> tuple[Rows, np.ndarray, Cells]:
    """The scores of the finished runs that count, by row and metric: rows, names of the metrics, cells.

    Values that are not finite are left out and counted.
    """
    scores = records.scores
    finished = np.flatnonzero(runs.finished)
    run = np.concatenate([scores["run"].to_numpy(), *([finished] * len(RUN_COSTS))])
    costs = [records.runs[name].to_numpy()[finished] for name in RUN_COSTS]
    values = np.concatenate([scores["value"].to_numpy(), *costs])
    metric = Codes.of(scores["metric"])
    names = np.concatenate([metric.values, np.array(RUN_COSTS, object)])
    metrics = np.concatenate([metric.codes, np.repeat(np.arange(len(metric.values), len(names)), len(finished))])

    counts = runs.finished[run] & (names != "")[metrics]
    kept = np.flatnonzero(counts & np.isfinite(values))
    tally.not_finite = int((counts & ~np.isfinite(values))[: len(scores)].sum())
    rows, row = _rows(scores, run[kept], kept, runs)
    cells = _cells(row, metrics[kept], len(names), values[kept], run[kept], runs.seed, tally)
    return rows, names, cells


def _rows(scores: pa.Table, run: np.ndarray, kept: np.ndarray, runs: Runs) -> tuple[Rows, np.ndarray]:
    """The rows of the kept scores, and the row of each; scores beyond the table are costs of whole runs."""
    split, variant, gallery = (Codes.of(scores[n]).with_value("") for n in ("split", "variant", "gallery_variant"))
    no_split, no_variant, no_gallery = (column.code("") for column in (split, variant, gallery))
    shape = (max(len(runs), 1), len(split.values), len(variant.values), len(gallery.values))
    coordinates = [runs.group[run]]
    for column, empty in ((split, no_split), (variant, no_variant), (gallery, no_gallery)):
        extended = np.append(column.codes, empty)
        coordinates.append(extended[np.minimum(kept, len(scores))])
    used, row = compress(np.ravel_multi_index(coordinates, shape), int(np.prod(shape)))
    of_group, of_split, of_variant, of_gallery = np.unravel_index(used, shape)

    def find(variants: np.ndarray) -> np.ndarray:
        empty = (np.full(len(used), no_split), variants, np.full(len(used), no_gallery))
        wanted = np.ravel_multi_index((of_group, *empty), shape)
        at = np.minimum(np.searchsorted(used, wanted), max(len(used) - 1, 0))
        return np.where(used[at] == wanted, at, -1)

    trivial = np.array([is_trivial(name) for name in variant.values], bool)
    origin = _origins(scores, kept, row, len(used))
    costs = np.stack([find(of_variant), find(np.full(len(used), no_variant))], axis=1)
    costs[origin != "", 1] = -1
    rows = Rows(
        group=of_group,
        split=split.values[of_split],
        variant=variant.values[of_variant],
        gallery_variant=gallery.values[of_gallery],
        trivial=trivial[of_variant],
        origin=origin,
        costs=costs,
    )
    return rows, row


def _origins(scores: pa.Table, kept: np.ndarray, row: np.ndarray, count: int) -> np.ndarray:
    """The origin of each of `count` rows: that of any of its scores."""
    found = np.full(count, "", object)
    codes = Codes.of(scores["origin"])
    named = np.append(codes.values != "", False)[np.append(codes.codes, len(codes.values))]
    at = np.flatnonzero(named[np.minimum(kept, len(scores))])
    found[row[at]] = codes.decode(kept[at])
    return found


def _cells(
    row: np.ndarray,
    metric: np.ndarray,
    metrics: int,
    values: np.ndarray,
    run: np.ndarray,
    seed: np.ndarray,
    tally: Tally,
) -> Cells:
    key = row * metrics + metric
    order = np.lexsort((seed[run], key))
    key, values, run = key[order], values[order], run[order]
    again = np.zeros(len(key), bool)
    again[1:] = (key[1:] == key[:-1]) & (run[1:] == run[:-1])
    if again.any():  # a record that states a value twice: the first one counts
        tally.repeated = int(again.sum())
        key, values, run = key[~again], values[~again], run[~again]
    start = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    row, metric, start = key[start] // metrics, key[start] % metrics, np.append(start, len(key))
    return Cells(row, metric, start, values, seed[run], run, apart=np.zeros(len(row), bool))


def keep_times_apart(cells: Cells, names: np.ndarray, machines: Machines) -> Cells:
    """The same cells, without a mean where times of several machines, or of other libraries, would be averaged."""
    timed = np.array([depends_on_machine(name) for name in names], bool)[cells.metric] & (cells.count > 1)
    of_times = np.flatnonzero(timed[cells.owner])
    several = machines.several(cells.owner[of_times], cells.runs[of_times], len(cells.row))
    return replace(cells, apart=several)
