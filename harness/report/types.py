"""What a report shows, as types: the page and the figures for papers draw the same content.

The names of fields are those of the JSON that the page's program reads. Indices point into `ReportContent.runs`,
`.contests` and `.groups`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from subnetbench.harness.leaderboard.beside import Beside
from subnetbench.harness.leaderboard.configs import Config, Leaf
from subnetbench.harness.report.overall import OverTasks
from subnetbench.harness.report.texts import Numbers, Written, fields_of


@dataclass(frozen=True)
class MetricInfo:
    """What a metric means; which way is better: 1 more, -1 less, 0 neither; a cost; a share of 1."""

    about: str
    better: int
    cost: bool
    share: bool


@dataclass(frozen=True)
class Contest:
    """Rows that are ranked together: what they have in common, the metric that ranks them, the metrics shown first."""

    task: str
    dataset: str
    protocol: str
    data_digest: str
    split: str
    schema_meaning: str
    title: str
    lead: str
    metrics: list[str]


@dataclass(frozen=True)
class Cell(Numbers):
    """One metric of one row; `half` is half the width of the interval, `runs` are those behind `values`.

    `interval` says over what it is: `seeds`, `joint` (seeds and test items), or empty where there is none.
    `rank` is 0 where the row is not ranked by the metric; the true rank lies in `ranks`. `apart` says in what the machines
    of the runs differ where the metric is a time: there is no mean then. `clears` says whether the whole interval is better than the
    best trivial baseline without a network, whose name is `baseline`; None where one of them is missing. `frozen` and its like
    are the same of the best baseline on features of a frozen network.
    """

    mean: float | None
    std: float | None
    half: float | None
    values: list[float | None]
    runs: list[int]
    rank: int = 0
    ranks: tuple[int, int] = (0, 0)
    trivial: float | None = None
    baseline: str = ""
    clears: bool | None = None
    frozen: float | None = None
    frozen_baseline: str = ""
    clears_frozen: bool | None = None
    apart: str = ""
    interval: str = ""

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = {
            "mean": self.mean,
            "std": self.std,
            "half": self.half,
            "values": self.values,
            "runs": self.runs,
        }
        if self.apart:
            content["apart"] = self.apart
        if self.interval:
            content["interval"] = self.interval
        if self.rank:
            content |= {"rank": self.rank, "ranks": self.ranks}
        if self.trivial is not None:
            content |= {"trivial": self.trivial, "baseline": self.baseline, "clears": self.clears}
        if self.frozen is not None:
            content |= {
                "frozen": self.frozen,
                "frozen_baseline": self.frozen_baseline,
                "clears_frozen": self.clears_frozen,
            }
        return content


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard with its cells by metric.

    `input_of` is the method whose runs measured it, where it is the network of an input of them.
    `code`, `files` and `numerics` tell it apart from others of its method, and are empty where these do not differ.
    Where configs were chosen on validation, `chosen_from` is among how many and `validation` the score that chose.
    """

    contest: int
    group: int
    method: str
    network: str
    variant: str
    gallery_variant: str
    input_of: str
    config: str
    budget: str
    preset: str
    tuned: bool
    code: str
    files: str
    numerics: str
    seeds: int
    failed: int
    pruned: int
    partial: int
    cells: dict[str, Cell]
    chosen_from: int = 0
    validation: float | None = None


@dataclass(frozen=True)
class Group:
    """What the runs of a row have in common beyond its columns."""

    config: Config
    config_hash: str
    data_digest: str
    protocol: str
    dataset: str
    task: str
    code_digest: str
    files_digest: str
    numerics: str


class Curve(NamedTuple):
    """The values of one tag, such as `train/loss`, after numbers of epochs."""

    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Run(Written):
    """A record, with what its run folder holds; `host`, `file` and `log` are None where they are private."""

    run_id: str
    attempt: int
    seed: int
    status: str
    error_kind: str
    error: str
    sweep: str
    study: str
    trial: int | None
    started_at: str
    finished_at: str
    wall_seconds: float | None
    train_seconds: float | None
    gpu_hours: float | None
    world_size: int
    device: str
    threads: int
    precision: str
    git_sha: str
    git_dirty: bool
    slurm_job_id: str
    n_requeue: int
    record_id: str
    versions: dict[str, str]
    command: str
    history: dict[str, Curve]
    host: str | None = None
    file: str | None = None
    log: str | None = None

    def to_json(self) -> dict[str, object]:
        return fields_of(self, [name for name in ("host", "file", "log") if getattr(self, name) is None])


@dataclass(frozen=True)
class Importance(Written):
    """How much of the variation of a metric one searched field explains, in 0..1."""

    field: str
    value: float

    def to_json(self) -> list[object]:
        return [self.field, self.value]


@dataclass(frozen=True)
class Budget:
    """What a search was allowed to spend; None: not limited."""

    trials: float | None
    device_hours: float | None


@dataclass(frozen=True)
class BestConfig:
    """A trial that no other beats: its values by metric, and its config."""

    trial: float | None
    values: dict[str, float | None]
    config: dict[str, Leaf]


@dataclass(frozen=True)
class Search:
    """What a search left beside its trials; `importances` by metric, the most important field first."""

    objectives: list[str]
    budget: Budget
    device_hours: float | None
    sampler: str
    pruner: str
    stopped: str
    notes: list[str]
    importances: dict[str, list[Importance]]
    best: list[BestConfig]


@dataclass(frozen=True)
class Trial:
    """A trial: its value (None where it has none), its cost in executed MACs where known, and its settings."""

    trial: int
    status: str
    value: float | None
    cost: float | None
    settings: list[Leaf]
    run: int


@dataclass(frozen=True)
class Study:
    """The trials of a search; `settings` of a trial are the values of `varied`, in that order."""

    study: str
    method: str
    dataset: str
    metric: str
    better: int
    varied: list[str]
    trials: list[Trial]
    search: Search | None


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows. Texts hold no control characters; numbers are finite or None."""

    title: str
    created: str
    program: str
    confidence: float
    counts: dict[str, int]
    metrics: dict[str, MetricInfo]
    contests: list[Contest]
    rows: list[Row]
    groups: list[Group]
    runs: list[Run]
    unfinished: list[int]
    studies: list[Study]
    overall: list[OverTasks]
    published: list[Beside]
    notes: list[str]

    def to_json(self) -> dict[str, object]:
        """Plain JSON, as the page's program reads it."""
        return fields_of(self)
