"""What a run leaves behind: one record, with all its scores. `write.py` makes a file of it."""

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from subnetbench.harness.core.hashing import SHORT_DIGITS, content_hash
from subnetbench.harness.records.items import ItemValues

Status = Literal["finished", "failed", "pruned", "partial"]
STATUSES: tuple[str, ...] = get_args(Status)

RECORDS_FOLDER = "records"
MERGED_PREFIX = "merged-"
TRIVIAL = "trivial"
"""Variant of the rows that hold a trivial baseline: `trivial:chance`, `trivial:knn_pixels`, ..., or just `trivial`"""

FROZEN = "_features"
"""How the names of those trivial baselines end that use the features of a packaged network as it comes"""

_ERROR_LENGTH = 500
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One value of a run.

    `metric` is the name of a score (`top1`, `recall_at_1`) or of something else that was measured of `variant`
    (`sparsity`, `parameters`, `macs_executed`, ...), which then has no split. In retrieval `variant` embeds the
    queries and `gallery_variant` the gallery.
    """

    metric: str
    value: float
    split: str = ""
    variant: str = ""
    gallery_variant: str = ""
    origin: str = ""
    """The method of the input whose own network was scored (a teacher beside its student); else empty."""
    items: ItemValues | None = field(default=None, compare=False, repr=False)
    """Where the value is a mean over items: the value of each of them. Kept in a file of its own."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that is kept of one attempt at a run; the fields are the columns of `schema.COLUMNS`.

    `config` is the method's and the data set's config and holds no seed; `config_hash` is derived from it unless
    it is given. `error` may be a whole traceback text: its first line is kept. A run that failed is recorded too.
    """

    run_id: str
    status: Status
    method: str
    dataset: str
    task: str
    protocol: str
    data_digest: str
    seed: int
    started_at: datetime
    finished_at: datetime
    primary_metric: str
    scores: Iterable[Score] = ()
    config: Mapping[str, Any] = field(default_factory=dict)  # open: every method has its own
    spec: Mapping[str, Any] = field(default_factory=dict)  # open: holds the config
    versions: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    preset: str = "default"
    network: str = ""
    budget: str = ""
    tuned: bool = False
    sweep: str = ""
    study: str = ""
    trial: int | None = None
    error_kind: str = ""
    error: str = ""
    config_hash: str = ""
    wall_seconds: float | None = None
    train_seconds: float | None = None
    gpu_hours: float | None = None
    world_size: int = 1
    device: str = ""
    threads: int = 1
    precision: str = "no"
    git_sha: str = ""
    git_dirty: bool = False
    host: str = ""
    slurm_job_id: str = ""
    n_requeue: int = 0
    code_digest: str = ""
    files_digest: str = ""
    numerics: str = ""
    provenance_json: str = ""
    searched_fields: str = ""
    items_digest: str = ""
    training_macs: float | None = None
    input_training_macs: float | None = None
    images_seen: float | None = None
    steps: float | None = None
    energy_joules: float | None = None
    spent_json: str = ""
    record_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise ValueError(f"run_id is not usable as a file name: {self.run_id!r}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        for name in ("started_at", "finished_at"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"{name} has no time zone")
        if "seed" in self.config:
            raise ValueError("config must not hold the seed: runs of different seeds share a config")
        object.__setattr__(self, "scores", tuple(self.scores))
        object.__setattr__(
            self, "config_hash", self.config_hash or content_hash(self.config, SHORT_DIGITS, strict=False)
        )
        first_line = next((line for line in self.error.splitlines() if line.strip()), "")
        printable = first_line.strip()[:_ERROR_LENGTH].encode("utf-8", "replace").decode()
        object.__setattr__(self, "error", printable)


def is_trivial(variant: str) -> bool:
    """Whether a variant's scores are a trivial baseline, such as chance."""
    return variant == TRIVIAL or variant.startswith(f"{TRIVIAL}:")
