"""Rows and cells of a leaderboard, and the values of all seeds behind them, as arrays."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import counted_by
from subnetbench.harness.core.statistics import floored, t_half_width, variance_floor
from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.aggregate import (
    DERIVED,
    GROUP,
    UNFINISHED,
    Tally,
    choose_runs,
    collect,
    keep_times_apart,
)
from subnetbench.harness.leaderboard.attribution import MEASURED_BY, attribute
from subnetbench.harness.leaderboard.codes import Codes
from subnetbench.harness.leaderboard.configs import Config
from subnetbench.harness.leaderboard.inputs import PREFIX, with_inputs_told_apart
from subnetbench.harness.leaderboard.item_intervals import CellIntervals
from subnetbench.harness.leaderboard.item_scores import ItemScores
from subnetbench.harness.leaderboard.keys import COSTS
from subnetbench.harness.leaderboard.machines import COLUMNS as OF_MACHINES
from subnetbench.harness.leaderboard.machines import Machines, with_machines
from subnetbench.harness.leaderboard.spending import ALLOWED, TOTAL, budget_label, totals
from subnetbench.harness.leaderboard.unrecorded import without_record
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.records.schema import RUN_COSTS

_COLUMNS = (
    *(name for name in GROUP if name not in DERIVED),
    *("seed", "trial", "primary_metric", "error_kind", "error", "config_json", "finished_at", *RUN_COSTS),
    "spent_json",
    *OF_MACHINES,
    "items_digest",
    "searched_fields",
    *("git_sha", "git_dirty"),  # all that old records say of their code
    "spec_json",  # not shown, but a record whose id is not that of its spec is left out
)


class Board:
    """What a leaderboard is computed from: rows, and cells with the values of all seeds, by row and metric.

    `Leaderboard` adds tidy frames.
    """

    def __init__(
        self,
        paths: Path | str | Iterable[Path | str],
        *,
        trials: bool = False,
        confidence: float = 0.95,
        interval: str = "joint",
        by_machine: bool = False,
    ) -> None:
        records = read_records(paths, _COLUMNS)
        self._build(with_machines(records) if by_machine else records, trials, confidence, interval)

    @classmethod
    def from_records(
        cls, records: RecordSet, *, trials: bool = False, confidence: float = 0.95, interval: str = "joint"
    ) -> Self:
        """A leaderboard of records that were read already."""
        board = cls.__new__(cls)
        board._build(records, trials, confidence, interval)
        return board

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.records.runs):,} records, {len(self.rows):,} rows>"

    def _build(self, records: RecordSet, trials: bool, confidence: float, interval: str) -> None:
        if not 0 < confidence < 1:
            raise UserError("must lie between 0 and 1", field="confidence", value=confidence)
        self.records = records
        self.confidence = confidence
        self.tally = Tally(len(records.runs))
        self.runs = choose_runs(records, self.tally, trials=trials)
        self.machines = Machines.of(records.runs)
        self.scored, names, cells = collect(records, self.runs, self.tally)
        self.cells = keep_times_apart(cells, names, self.machines)
        self._metric_code = {names[code]: int(code) for code in np.unique(self.cells.metric)}
        self.items = ItemScores(records, self.scored, self.cells)
        self.intervals = CellIntervals(self.items, self.scored, self.cells, self.half_widths, confidence, interval)
        self._config_texts = records.runs["config_json"].combine_chunks().dictionary
        self._configs: dict[int, Config] = {}

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line a row: its keys (`KEYS`), `config` (where it differs from the method's other configs), `seeds`
        (finished runs), `failed`, `pruned`, `partial`, `total_training_macs`, `input_of`; and `group` and `cell_row`,
        its indices in `runs.groups` and in `scored`. `budget` says what was spent, too.

        Networks of inputs are rows of the input's method (see `attribution`), and `input_of` names the run's.

        A group without any score has one row with an empty split.
        """
        rows = self.rows_by_run
        origin = np.append(self.scored.origin, "")[rows["cell_row"]]
        groups = np.unique(rows["group"][origin != ""])
        finished = np.flatnonzero(self.runs.finished)
        record = np.zeros(len(self.runs), np.int64)
        record[self.runs.group[finished]] = finished  # any finished run of a group: they had inputs of one kind
        texts = self.records.runs["spent_json"].take(record[groups]).to_pylist()
        return attribute(rows, origin, dict(zip(groups.tolist(), texts, strict=True)))

    @cached_property
    def rows_by_run(self) -> pd.DataFrame:
        """`rows` where networks of inputs stay with the method of the run that measured them."""
        scored = self.scored
        shown = np.flatnonzero((scored.split != "") & ~scored.trivial)
        bare = np.setdiff1d(np.arange(len(self.runs)), scored.group[shown])
        group = np.concatenate([scored.group[shown], bare]).astype(np.int64)
        none = np.full(len(bare), "", object)
        columns = {name: values[group] for name, values in self.runs.groups.items()}
        for name in ("split", "variant", "gallery_variant"):
            columns[name] = np.concatenate([getattr(scored, name)[shown], none])
        columns[ALLOWED] = columns["budget"]
        columns["budget"] = np.array(
            [budget_label(*pair) for pair in zip(columns["budget"], columns["spending"], strict=True)], object
        )
        columns[TOTAL] = self._total_macs[group]
        columns["config"] = self.config_labels[group]
        columns[MEASURED_BY] = np.full(len(group), "", object)
        columns["seeds"] = self.runs.count("finished")[group]
        for status in UNFINISHED:
            columns[status] = self.runs.count(status)[group]
        columns["group"] = group
        columns["cell_row"] = np.concatenate([shown, np.full(len(bare), -1)]).astype(np.int64)
        return pd.DataFrame(columns)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics of which there is a value."""
        return tuple(self._metric_code)

    def metric_code(self, metric: str) -> int:
        """The number of a metric in `cells.metric`, or -1 where there is no value of it."""
        return self._metric_code.get(metric, -1)

    @property
    def default_metrics(self) -> list[str]:
        """The metrics that rank the tasks, then the costs that are known."""
        primary = self.records.runs["primary_metric"].unique().to_pylist()
        return [name for name in dict.fromkeys([*sorted(primary), *COSTS]) if name in self.metrics]

    def cell_of(self, rows: pd.DataFrame, metric: str, *, costs: bool = True) -> np.ndarray:
        """For each of some `rows`, the cell (an index into `cells`) of a metric, or -1.

        `costs` looks for values of the row's variant and of its run where the row has none of its own.
        """
        cell_at = np.full(len(self.scored) + 1, -1)
        if metric in self._metric_code:
            cells = np.flatnonzero(self.cells.metric == self._metric_code[metric])
            cell_at[self.cells.row[cells]] = cells
        row = rows["cell_row"].to_numpy()
        found = cell_at[row]
        for column in (0, 1) if costs else ():
            elsewhere = np.append(self.scored.costs[:, column], -1)[row]
            found = np.where(found < 0, cell_at[elsewhere], found)
        return np.asarray(found)

    def seed_matrix(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The seeds that occur in some cells, ascending, and their values (cells, seeds), NaN where one is missing."""
        counts = self.cells.count[cells]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(self.cells.start[cells], counts) + within
        seeds, column = np.unique(self.cells.seeds[at], return_inverse=True)
        matrix = np.full((len(cells), len(seeds)), np.nan)
        matrix[np.repeat(np.arange(len(cells)), counts), column] = self.cells.values[at]
        return seeds, matrix

    def runs_of(self, cells: np.ndarray) -> list[tuple[str, ...]]:
        """The ids of the runs behind each cell, in the order of their seeds."""
        return [tuple(self.run_ids[self.cells.runs[self.cells.part(cell)]]) for cell in cells]

    def failures(self) -> pd.DataFrame:
        """The counted runs without a result: method, dataset, seed, status, error_kind, error, run_id, file."""
        rows = np.flatnonzero((self.runs.group >= 0) & ~self.runs.finished)
        names = ["method", "dataset", "seed", "status", "error_kind", "error", "run_id", "file"]
        failures: pd.DataFrame = self.records.runs.select(names).take(rows).to_pandas()
        return failures

    def config(self, group: int) -> Config:
        """The config of a group, flat, by dotted path."""
        code = int(self._config_codes[group])
        if code not in self._configs:
            self._configs[code] = configs.flatten(self._config_texts[code].as_py())
        return self._configs[code]

    def searched(self, group: int) -> tuple[str, ...]:
        """The config fields that a search of the group's method may choose; empty where its records do not say."""
        return tuple(filter(None, str(self._searched[group]).split(",")))

    @cached_property
    def _searched(self) -> np.ndarray:
        counting = np.flatnonzero(self.runs.group >= 0)
        texts = Codes.of(self.records.runs["searched_fields"]).decode()[counting]
        of_group = np.full(len(self.runs), "", object)
        told = texts != ""  # of one config, records of an earlier version may lie beside later ones
        of_group[self.runs.group[counting][told]] = texts[told]
        return of_group

    @cached_property
    def config_labels(self) -> np.ndarray:
        """For each group, where its config differs from the others of the same method, network and data set."""
        labels = np.full(len(self.runs), "", object)
        hashes = self.runs.groups["config_hash"]
        family = pd.DataFrame({name: self.runs.groups[name] for name in ("task", "dataset", "method", "network")})
        for members in family.groupby(list(family.columns), sort=False).indices.values():
            if len(set(hashes[members])) > 1:
                own = [self.config(group) for group in members]
                found = configs.labels(self._with_inputs_told_apart(list(members), own))
                for group, label in zip(members, found, strict=True):
                    labels[group] = label or hashes[group]
        return labels

    def _with_inputs_told_apart(self, groups: Sequence[int], own: Sequence[Config]) -> list[Config]:
        """The configs `own` of some groups, their inputs by the fields in which these differ instead of by hashes."""
        if not any(path.startswith(PREFIX) for path in configs.differing(own)):
            return list(own)
        record = [int(np.flatnonzero(self.runs.group == group)[0]) for group in groups]
        specs = self.records.runs["spec_json"].take(record).to_pylist()
        return with_inputs_told_apart(own, specs)

    @cached_property
    def _total_macs(self) -> np.ndarray:
        """For each group the mean over its finished runs of what they and their inputs spent; NaN: not known."""
        runs = np.flatnonzero(self.runs.finished)
        group, found = self.runs.group[runs], totals(self.records.runs)[runs]
        with np.errstate(invalid="ignore"):
            count = np.bincount(group, minlength=len(self.runs))
            return np.asarray(np.bincount(group, found, minlength=len(self.runs)) / np.where(count, count, np.nan))

    @cached_property
    def steps(self) -> np.ndarray:
        """For each cell, the least by which two of its values can differ: one item of those that it is a share of.

        0 for costs, which are exact; NaN where the records do not say over how many items a score was taken.
        """
        cells = self.cells
        steps = np.where((self.scored.split == "")[cells.row], 0.0, np.nan)
        for name, code in self._metric_code.items():
            of, parts = counted_by(name)
            if of in self._metric_code:
                counts, own = (np.flatnonzero(cells.metric == c) for c in (self._metric_code[of], code))
                items = np.full(len(self.scored), np.nan)
                items[cells.row[counts]] = cells.mean[counts]
                steps[own] = 1 / np.where(items > 0, items * parts, np.nan)[cells.row[own]]
        return steps

    def steps_of(self, cells: np.ndarray) -> np.ndarray:
        """The `steps` of some cells; NaN for -1, which is none."""
        return np.asarray(np.append(self.steps, np.nan)[cells])

    @cached_property
    def half_widths(self) -> np.ndarray:
        """For each cell, half the width of its interval over seeds; `intervals` has those over items and over both.

        NaN where the seeds are all the same and the step is unknown.
        """
        cells = self.cells
        variance = floored(cells.std**2, cells.mean, variance_floor(self.steps))
        return t_half_width(np.sqrt(variance), cells.count, self.confidence)

    @cached_property
    def apart(self) -> np.ndarray:
        """For each cell, in what the machines of its runs differ if it is a time: such a cell has no mean. Else empty."""
        cells, words = self.cells, np.full(len(self.cells.row), "", object)
        at = np.flatnonzero(cells.apart[cells.owner])
        for name, differs in self.machines.differing(cells.owner[at], cells.runs[at], len(words)).items():
            words[differs] = [f"{word}, {name}" if word else name for word in words[differs]]
        return words

    @cached_property
    def without_record(self) -> pd.DataFrame:
        """The runs that were tried and left no record that counts; see `unrecorded.without_record`."""
        return without_record(self.records)

    @cached_property
    def run_ids(self) -> np.ndarray:
        """For each record, the id of its run."""
        return Codes.of(self.records.runs["run_id"]).decode()

    @cached_property
    def _config_codes(self) -> np.ndarray:
        """For each group, its index in `_config_texts`."""
        counting = np.flatnonzero(self.runs.group >= 0)
        codes = np.zeros(len(self.runs), np.int64)
        codes[self.runs.group[counting]] = Codes.of(self.records.runs["config_json"]).codes[counting]
        return codes
