"""From records to cells: which runs count, which scores belong together, and their mean and spread over seeds.

Everything here is arrays of integer codes, so that a million rows take well under a second; names come back when
a frame is made. What the rules mean to a user is told in `Leaderboard`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from subnetbench.harness.leaderboard.codes import Codes, Keys, combine, compress, last_rows, oldest_first
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.records.record import is_trivial
from subnetbench.harness.records.schema import RUN_COSTS
from subnetbench.harness.statistics import t_half_width

IDENTITY = ("task", "dataset", "method", "network", "preset", "tuned", "config_hash")
"""What a run was asked to do, but for its seed."""
CIRCUMSTANCES = ("protocol", "data_digest", "budget", "schema_meaning")
"""What it met when it ran; empty for runs that failed before they knew it."""
GROUP = (*IDENTITY, *CIRCUMSTANCES)
"""Runs that agree in all of these differ in nothing but their seeds; only such runs are averaged."""

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
    (records,) go with it. `groups` has one array (groups,) for each name in `GROUP`.
    """

    group: np.ndarray
    groups: dict[str, np.ndarray]
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
    cell and seed; `start` (cells + 1,) cuts them.
    """

    row: np.ndarray
    metric: np.ndarray
    start: np.ndarray
    values: np.ndarray
    seeds: np.ndarray
    runs: np.ndarray

    @cached_property
    def count(self) -> np.ndarray:
        return np.diff(self.start)

    @cached_property
    def mean(self) -> np.ndarray:
        return self._sums(self.values) / self.count

    @cached_property
    def std(self) -> np.ndarray:
        """Standard deviation with ddof = 1; NaN for one value."""
        squares = self._sums((self.values - np.repeat(self.mean, self.count)) ** 2)
        return np.sqrt(squares / np.where(self.count > 1, self.count - 1, np.nan))

    def half_width(self, confidence: float) -> np.ndarray:
        """Half the width of the t interval of each mean; NaN for one value."""
        return t_half_width(self.std, self.count, confidence)

    def part(self, cell: int) -> slice:
        return slice(int(self.start[cell]), int(self.start[cell + 1]))

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.start[:-1]) if len(self.row) else np.zeros(0)


@dataclass(frozen=True)
class Rows:
    """What cells are of: a variant of a group's network on a split; all arrays are (rows,).

    Costs have an empty split, those of the whole run an empty variant too: `costs` (rows, 2) are the rows that
    hold the costs of a row's variant and of its run, -1 where there are none.
    """

    group: np.ndarray
    split: np.ndarray
    variant: np.ndarray
    gallery_variant: np.ndarray
    trivial: np.ndarray
    costs: np.ndarray

    def __len__(self) -> int:
        return len(self.group)


def choose_runs(records: RecordSet, tally: Tally, *, trials: bool) -> Runs:
    """Choose the records that count: of one config and seed the latest finished one, or else the latest.

    `trials` keeps the trials of searches, which are left out otherwise.
    """
    runs = records.runs
    codes = {name: Codes.of(runs[name]) for name in (*GROUP, "seed", "status")}
    status = codes["status"].decode()
    finished = status == "finished"
    allowed = np.ones(len(runs), bool) if trials else runs["trial"].is_null().to_numpy()
    order = oldest_first(runs["finished_at"], runs["attempt"])
    asked = combine([codes[name] for name in (*IDENTITY, "seed")])
    met = combine([asked, *(codes[name] for name in CIRCUMSTANCES)])
    has_finished = np.zeros(asked.size, bool)
    has_finished[asked.codes[allowed & finished]] = True
    counts = _last_of_each(met, allowed & finished, order)
    counts |= _last_of_each(asked, allowed & ~finished & ~has_finished[asked.codes], order)
    tally.trials = int((~allowed).sum())
    tally.superseded = int(allowed.sum() - counts.sum())

    group = _groups(codes, counts, finished)
    used = last_rows(Keys(group.codes[counts], group.size)) if counts.any() else np.zeros(0, np.int64)
    example = np.flatnonzero(counts)[used]
    number = np.full(len(runs), -1)
    number[counts] = compress(group.codes[counts], group.size)[1]
    columns = {name: codes[name].decode(example) for name in GROUP}
    return Runs(number, columns, finished & counts, status, codes["seed"].decode())


def _last_of_each(keys: Keys, among: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows of `among` that are the last of their key in `order`, as a mask."""
    ordered = order[among[order]]
    chosen = np.zeros(len(keys.codes), bool)
    chosen[ordered[last_rows(Keys(keys.codes[ordered], keys.size))]] = True
    return chosen


def _groups(codes: dict[str, Codes], counts: np.ndarray, finished: np.ndarray) -> Keys:
    """The group of each record. One that failed before it knew its data joins the finished runs of its config,
    if they are one group."""
    identity, group = combine([codes[name] for name in IDENTITY]), combine([codes[name] for name in GROUP])
    done = counts & finished
    pairs = np.unique(np.stack([identity.codes[done], group.codes[done]]), axis=1)
    several = np.bincount(pairs[0], minlength=identity.size) != 1
    only = np.zeros(identity.size, np.int64)
    only[pairs[0]] = pairs[1]
    ignorant = counts & ~finished & (codes["data_digest"].decode() == "") & ~several[identity.codes]
    return Keys(np.where(ignorant, only[identity.codes], group.codes), group.size)


def collect(records: RecordSet, runs: Runs, tally: Tally) -> tuple[Rows, np.ndarray, Cells]:
    """The scores of the finished runs that count, by row and metric: rows, names of the metrics, cells.

    Figures that are not finite are left out and counted.
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
    rows, place = _rows(scores, run[kept], kept, runs)
    cells = _cells(place, metrics[kept], len(names), values[kept], run[kept], runs.seed, tally)
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
    used, place = compress(np.ravel_multi_index(coordinates, shape), int(np.prod(shape)))
    of_group, of_split, of_variant, of_gallery = np.unravel_index(used, shape)

    def find(variants: np.ndarray) -> np.ndarray:
        empty = (np.full(len(used), no_split), variants, np.full(len(used), no_gallery))
        wanted = np.ravel_multi_index((of_group, *empty), shape)
        at = np.minimum(np.searchsorted(used, wanted), max(len(used) - 1, 0))
        return np.where(used[at] == wanted, at, -1)

    trivial = np.array([is_trivial(name) for name in variant.values], bool)
    rows = Rows(
        group=of_group,
        split=split.values[of_split],
        variant=variant.values[of_variant],
        gallery_variant=gallery.values[of_gallery],
        trivial=trivial[of_variant],
        costs=np.stack([find(of_variant), find(np.full(len(used), no_variant))], axis=1),
    )
    return rows, place


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
    if again.any():  # a record that states a figure twice: the first one counts
        tally.repeated = int(again.sum())
        key, values, run = key[~again], values[~again], run[~again]
    start = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    return Cells(key[start] // metrics, key[start] % metrics, np.append(start, len(key)), values, seed[run], run)
