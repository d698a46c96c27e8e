"""The schema of a record file: explicit, versioned, in long form (one row a score).

`SCHEMA_VERSION` counts added columns: a file of an earlier version is read, and the columns it lacks get their
default. `SCHEMA_MEANING` changes when an existing column comes to mean something else; rows of different meanings
are never averaged together. A column is never renamed and never changes its type.

Strings are never null (empty: does not apply); a number is null when it is not known. A run without scores has
one row, whose `metric` is empty and whose `value` is null.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from subnetbench.harness.records.record import STATUSES

SCHEMA_VERSION: Final = 2
SCHEMA_MEANING: Final = 1

PRECISIONS: Final = ("fp32", "tf32", "bf16")
ERROR_KINDS: Final = (
    *("error", "nan", "out-of-memory", "killed", "hang", "standstill"),
    *(
        "world-size",
        "foreign-checkpoint",
        "data-changed",
        "files-changed",
        "code-changed",
        "numerics-changed",
        "no-gpu",
        "pruned",
    ),
)
"""Why runs end without a result, in short stable words."""


@dataclass(frozen=True)
class Column:
    """One column: `of_score` columns differ from row to row, all others are the same in all rows of a record."""

    name: str
    type: pa.DataType
    help: str
    """What it holds, and its values where they are a short list."""
    of_score: bool = False
    since: int = 1
    default: str | int | float | bool | None = None
    """What a file written before version `since` is taken to say."""

    @property
    def nullable(self) -> bool:
        return pa.types.is_floating(self.type) or self.name == "trial"


TEXT: Final = pa.string()
INTEGER: Final = pa.int64()
NUMBER: Final = pa.float64()
FLAG: Final = pa.bool_()
TIME: Final = pa.timestamp("us", tz="UTC")

COLUMNS: tuple[Column, ...] = (
    Column("schema_version", INTEGER, "version of this schema that the file was written with"),
    Column("schema_meaning", INTEGER, "version of what the columns mean; never mixed"),
    Column("record_id", TEXT, "unique to this file when it was written; survives merging"),
    Column("run_id", TEXT, "content hash of the run's frozen spec, seed included"),
    Column("attempt", INTEGER, "1 for the first try of this run"),
    Column("status", TEXT, f"one of {', '.join(STATUSES)}"),
    Column(
        "error_kind",
        TEXT,
        f"why a run has no result; empty for a finished one: {', '.join(ERROR_KINDS)}",
    ),
    Column("error", TEXT, "first line of the error"),
    Column("sweep", TEXT, "name of the sweep"),
    Column("study", TEXT, "name of the study, for trials of a search"),
    Column("trial", INTEGER, "number of the trial in its study"),
    Column("method", TEXT, "registered name of the method"),
    Column("preset", TEXT, "default, or paper: faults of the published implementation included"),
    Column("network", TEXT, "backbone"),
    Column("dataset", TEXT, "registered name of the data set"),
    Column("task", TEXT, "classification, retrieval or text_image"),
    Column("protocol", TEXT, "how splits were made and scores are computed"),
    Column("data_digest", TEXT, "content digest of the data that was used"),
    Column("seed", INTEGER, "the run's seed"),
    Column("budget", TEXT, "what the run was allowed to spend, such as 10 epochs"),
    Column("tuned", FLAG, "the config was chosen by a search"),
    Column("primary_metric", TEXT, "the metric that ranks this task"),
    Column("config_hash", TEXT, "hash of the config without its seed: what runs of different seeds share"),
    Column("config_json", TEXT, "the config as JSON"),
    Column("spec_json", TEXT, "the whole frozen spec as JSON: what reproduces the run"),
    Column("split", TEXT, "split that was scored; empty for what a variant costs", of_score=True),
    Column("variant", TEXT, "network that was scored (in retrieval: that embeds the queries)", of_score=True),
    Column("gallery_variant", TEXT, "network that embeds the gallery; empty outside retrieval", of_score=True),
    Column("metric", TEXT, "name of the score or cost", of_score=True),
    Column("value", NUMBER, "the score or cost", of_score=True),
    Column("origin", TEXT, "method of the input whose own network this is; empty: trained by the run", True, 2, ""),
    Column("wall_seconds", NUMBER, "from start to record, over all resumptions"),
    Column("train_seconds", NUMBER, "spent in training stages"),
    Column("gpu_hours", NUMBER, "devices times hours"),
    Column("world_size", INTEGER, "processes"),
    Column("device", TEXT, "model of the device"),
    Column("threads", INTEGER, "threads a process"),
    Column("precision", TEXT, f"{' or '.join(PRECISIONS)} (mixed precision); other writers may say no or fp16"),
    Column("git_sha", TEXT, "commit of the code"),
    Column("git_dirty", FLAG, "the code had changes that were not committed"),
    Column("versions_json", TEXT, "versions of Python and of the libraries as JSON"),
    Column("started_at", TIME, "start, UTC"),
    Column("finished_at", TIME, "end, UTC"),
    Column("host", TEXT, "machine"),
    Column("slurm_job_id", TEXT, "SLURM job"),
    Column("n_requeue", INTEGER, "times the run was interrupted and queued again"),
    Column("code_digest", TEXT, "digest of the source of method and data set; empty: unknown", since=2, default=""),
    Column("files_digest", TEXT, "digest of all files read beside the data; empty: unknown", since=2, default=""),
    Column("numerics", TEXT, "precision and determinism as executed; empty: unknown", since=2, default=""),
    Column("provenance_json", TEXT, "what the run stands on as JSON; empty: unknown", since=2, default=""),
    Column("searched_fields", TEXT, "config fields that a search may choose, comma-separated", since=2, default=""),
    Column("items_digest", TEXT, "digest of the file of scores by item; empty: there is none", since=2, default=""),
    Column("training_macs", NUMBER, "multiply-accumulates of training, forward and backward", since=2),
    Column("input_training_macs", NUMBER, "the same of its inputs' training", since=2),
    Column("images_seen", NUMBER, "training images, each time that one is seen", since=2),
    Column("steps", NUMBER, "optimizer steps", since=2),
    Column("energy_joules", NUMBER, "energy of the device while training", since=2),
    Column("spent_json", TEXT, "what the run and each of its inputs spent; empty: unknown", since=2, default=""),
)

RUN_COSTS: Final = (
    *("wall_seconds", "train_seconds", "gpu_hours"),
    *("training_macs", "input_training_macs", "images_seen", "steps", "energy_joules"),
)
"""Run-level columns that a leaderboard shows like metrics."""


def run_columns() -> tuple[str, ...]:
    """Names of the columns that are the same in all rows of a record."""
    return tuple(column.name for column in COLUMNS if not column.of_score)


def score_columns() -> tuple[str, ...]:
    """Names of the columns that differ from row to row."""
    return tuple(column.name for column in COLUMNS if column.of_score)


def arrow_schema() -> pa.Schema:
    """The Arrow schema that files of the present version are written with."""
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in COLUMNS])
