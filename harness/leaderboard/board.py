"""The leaderboard: a view over records, computed anew each time, never stored."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.metrics import parse_metric
from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.aggregate import GROUP, UNFINISHED, Tally, choose_runs, collect
from subnetbench.harness.leaderboard.codes import Codes
from subnetbench.harness.leaderboard.frames import View, tidy
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.records.schema import RUN_COSTS

COSTS = ("sparsity", "parameters", "macs_executed", "macs_nonzero", "wall_seconds")
"""What a leaderboard shows beside the score, where it is known."""

CONTEST = ("task", "dataset", "protocol", "data_digest", "split", "schema_meaning")
"""Rows are ranked together when they agree in these."""

KEYS = (*GROUP, "split", "variant", "gallery_variant")
"""What makes a row."""

_COLUMNS = (*GROUP, "seed", "trial", "primary_metric", "error_kind", "error", "config_json", "finished_at", *RUN_COSTS)


def higher_is_better(metric: str) -> bool | None:
    """Which way of a metric is better; None where neither is, or where that is not known."""
    if metric in RUN_COSTS:
        return False
    try:
        return parse_metric(metric)[0].higher_is_better
    except UserError:
        return None


class Leaderboard:
    """Mean, spread, interval and rank of every score, over the seeds of each config.

    `paths` are result folders or record files, of any number of machines. Averaged are only runs that differ in
    nothing but their seed: another data digest, protocol, split, budget, preset, config, schema meaning, or tuned
    or not, makes another row, and `notes` says why. Of several finished attempts at one config and seed, the
    latest counts. Runs that failed, were pruned or ended early are counted, never averaged; the trials of a
    search are left out unless `trials` asks for them.

    An interval is a Student t interval at `confidence` over seeds: where the mean over all seeds lies, not how
    the score would change with other test items.
    """

    def __init__(
        self, paths: Path | str | Iterable[Path | str], *, trials: bool = False, confidence: float = 0.95
    ) -> None:
        self._build(read_records(paths, _COLUMNS), trials, confidence)

    @classmethod
    def from_records(cls, records: RecordSet, *, trials: bool = False, confidence: float = 0.95) -> "Leaderboard":
        """A leaderboard of records that were read already."""
        board = cls.__new__(cls)
        board._build(records, trials, confidence)
        return board

    def _build(self, records: RecordSet, trials: bool, confidence: float) -> None:
        if not 0 < confidence < 1:
            raise UserError("must lie between 0 and 1", field="confidence", value=confidence)
        self.records = records
        self.confidence = confidence
        self.tally = Tally(len(records.runs))
        self.runs = choose_runs(records, self.tally, trials=trials)
        self.scored, names, self.cells = collect(records, self.runs, self.tally)
        self._metric_code = {names[code]: int(code) for code in np.unique(self.cells.metric)}
        self._config_texts = records.runs["config_json"].combine_chunks().dictionary
        self._configs: dict[int, dict[str, Any]] = {}

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line a row: its keys (`KEYS`), `config` (what tells it from the method's other configs), `seeds`
        (finished runs), `failed`, `pruned`, `partial`; and `group` and `place`, its numbers in this object.

        A group without any score has one row with an empty split.
        """
        scored = self.scored
        shown = np.flatnonzero((scored.split != "") & ~scored.trivial)
        bare = np.setdiff1d(np.arange(len(self.runs)), scored.group[shown])
        group = np.concatenate([scored.group[shown], bare]).astype(np.int64)
        none = np.full(len(bare), "", object)
        columns: dict[str, Any] = {name: values[group] for name, values in self.runs.groups.items()}
        for name in ("split", "variant", "gallery_variant"):
            columns[name] = np.concatenate([getattr(scored, name)[shown], none])
        columns["config"] = self.config_labels[group]
        columns["seeds"] = self.runs.count("finished")[group]
        for status in UNFINISHED:
            columns[status] = self.runs.count(status)[group]
        columns["group"] = group
        columns["place"] = np.concatenate([shown, np.full(len(bare), -1)]).astype(np.int64)
        return pd.DataFrame(columns)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics of which there is a figure."""
        return tuple(self._metric_code)

    def metric_code(self, metric: str) -> int:
        """The number of a metric in `cells.metric`, or -1 where there is no figure of it."""
        return self._metric_code.get(metric, -1)

    @property
    def default_metrics(self) -> list[str]:
        """The metrics that rank the tasks, then the costs that are known."""
        primary = self.records.runs["primary_metric"].unique().to_pylist()
        return [name for name in dict.fromkeys([*sorted(primary), *COSTS]) if name in self.metrics]

    def frame(self, **view: Any) -> pd.DataFrame:
        """A tidy frame: one line for each row and metric.

        The arguments are the fields of `View`: `metrics`, `where`, `splits`, `sort`, `within`.

        Columns: the keys of the row (`KEYS`), `config`, `metric`, `mean`, `std`, `low`, `high`, `seeds` (values
        that were averaged), `failed`, `pruned`, `partial`, `rank` (among the rows shown that agree in `CONTEST`
        and in `within`; 0: not ranked), `trivial` (the best trivial baseline), `clears_trivial` (the whole
        interval is better than it), and `run_ids`.

        `metrics` are shown in this order (default: all that occur). `where` is an expression over columns, means
        of metrics and config fields: `sparsity >= 0.8 and config.lr < 0.1`. `splits` limits the splits (None:
        all). `sort` names columns or metrics, with a leading `-` for descending; by default by contest and rank.
        """
        return tidy(self, View(**view))

    def cell_of(self, rows: pd.DataFrame, metric: str, *, costs: bool = True) -> np.ndarray:
        """For each of some `rows`, the cell (an index into `cells`) of a metric, or -1.

        `costs` looks for figures of the row's variant and of its run where it has none of its own.
        """
        cell_at = np.full(len(self.scored) + 1, -1)
        if metric in self._metric_code:
            cells = np.flatnonzero(self.cells.metric == self._metric_code[metric])
            cell_at[self.cells.row[cells]] = cells
        place = rows["place"].to_numpy()
        found = cell_at[place]
        for column in (0, 1) if costs else ():
            elsewhere = np.append(self.scored.costs[:, column], -1)[place]
            found = np.where(found < 0, cell_at[elsewhere], found)
        return np.asarray(found)

    def trivial(self, rows: pd.DataFrame, metric: str) -> np.ndarray:
        """For each of some `rows`, the best trivial baseline of its group and split, or NaN."""
        baselines = pd.DataFrame(
            {"group": self.scored.group, "split": self.scored.split, "place": range(len(self.scored))}
        )
        baselines = baselines[self.scored.trivial]
        cell = self.cell_of(baselines, metric, costs=False)
        baselines = baselines[cell >= 0]
        baselines = baselines.assign(value=self.cells.mean[cell[cell >= 0]])
        best = baselines.groupby(["group", "split"])["value"].agg("min" if higher_is_better(metric) is False else "max")
        return rows[["group", "split"]].merge(best.reset_index(), "left")["value"].to_numpy(np.float64)

    def samples(self, cell: int) -> dict[int, float]:
        """The value of each seed in a cell."""
        part = self.cells.part(cell)
        return dict(zip(self.cells.seeds[part].tolist(), self.cells.values[part].tolist(), strict=True))

    def seed_matrix(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The seeds that occur in some cells, ascending, and their values (cells, seeds), NaN where one is missing."""
        counts = self.cells.count[cells]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(self.cells.start[cells], counts) + within
        seeds, place = np.unique(self.cells.seeds[at], return_inverse=True)
        matrix = np.full((len(cells), len(seeds)), np.nan)
        matrix[np.repeat(np.arange(len(cells)), counts), place] = self.cells.values[at]
        return seeds, matrix

    def runs_of(self, cells: np.ndarray) -> list[tuple[str, ...]]:
        """The ids of the runs that each cell stands on, in the order of their seeds."""
        return [tuple(self.run_ids[self.cells.runs[self.cells.part(cell)]]) for cell in cells]

    def sources(self, cell: int) -> pd.DataFrame:
        """The records that a cell stands on: run_id, attempt, seed, value, file, record_id."""
        part = self.cells.part(cell)
        names = ["run_id", "attempt", "seed", "file", "record_id"]
        frame = self.records.runs.select(names).take(self.cells.runs[part]).to_pandas()
        frame.insert(3, "value", self.cells.values[part])
        return frame

    def failures(self) -> pd.DataFrame:
        """The counted runs without a result: method, dataset, seed, status, error_kind, error, run_id, file."""
        rows = np.flatnonzero((self.runs.group >= 0) & ~self.runs.finished)
        names = ["method", "dataset", "seed", "status", "error_kind", "error", "run_id", "file"]
        return self.records.runs.select(names).take(rows).to_pandas()

    def config(self, group: int) -> dict[str, Any]:
        """The config of a group, flat, by dotted path."""
        code = int(self._config_codes[group])
        if code not in self._configs:
            self._configs[code] = configs.flatten(self._config_texts[code].as_py())
        return self._configs[code]

    @cached_property
    def config_labels(self) -> np.ndarray:
        """For each group, what tells its config from the others of the same method, network and data set."""
        labels = np.full(len(self.runs), "", object)
        hashes = self.runs.groups["config_hash"]
        family = pd.DataFrame({name: self.runs.groups[name] for name in ("task", "dataset", "method", "network")})
        for members in family.groupby(list(family.columns), sort=False).indices.values():
            if len(set(hashes[members])) > 1:
                found = configs.labels([self.config(group) for group in members])
                for group, label in zip(members, found, strict=True):
                    labels[group] = label or hashes[group]
        return labels

    @cached_property
    def half_widths(self) -> np.ndarray:
        """For each cell, half the width of its interval."""
        return self.cells.half_width(self.confidence)

    @cached_property
    def run_ids(self) -> np.ndarray:
        """For each record, the id of its run."""
        return Codes.of(self.records.runs["run_id"]).decode()

    @cached_property
    def _config_codes(self) -> np.ndarray:
        """For each group, its place in `_config_texts`."""
        counting = np.flatnonzero(self.runs.group >= 0)
        codes = np.zeros(len(self.runs), np.int64)
        codes[self.runs.group[counting]] = Codes.of(self.records.runs["config_json"]).codes[counting]
        return codes
