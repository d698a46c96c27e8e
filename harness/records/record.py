"""What a run leaves behind: one record, with all its scores, written as one immutable parquet file."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from subnetbench.harness.errors import SubnetbenchError

Status = Literal["finished", "failed", "pruned", "partial"]

RECORDS_FOLDER = "records"
MERGED_PREFIX = "merged-"
TRIVIAL = "trivial"
"""Variant of the rows that hold a trivial baseline: `trivial`, or `trivial:chance`, `trivial:raw_pixels`, ..."""

_ERROR_LENGTH = 500
# A leaderboard opens thousands of these files, and most of its time goes into footers and page headers: no
# statistics, no second copy of the schema, and dictionary pages only for the long texts.
_SMALL_FILE: dict[str, Any] = {
    "compression": "snappy",
    "write_statistics": False,
    "store_schema": False,
    "use_dictionary": ["config_json", "spec_json", "versions_json"],
}
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure of a run.

    `metric` is the name of a score (`top1`, `recall_at_1`) or of something else that is known of `variant`
    (`sparsity`, `parameters`, `macs_executed`, ...), which then has no split. In retrieval `variant` embeds the
    queries and `gallery_variant` the gallery.
    """

    metric: str
    value: float
    split: str = ""
    variant: str = ""
    gallery_variant: str = ""


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
    config: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
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
    record_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        from subnetbench.harness.records.schema import STATUSES

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
        object.__setattr__(self, "config_hash", self.config_hash or content_hash(self.config))
        first_line = next((line for line in self.error.splitlines() if line.strip()), "")
        printable = first_line.strip()[:_ERROR_LENGTH].encode("utf-8", "replace").decode()
        object.__setattr__(self, "error", printable)


def is_trivial(variant: str) -> bool:
    """Whether a variant's scores are a trivial baseline, such as chance."""
    return variant == TRIVIAL or variant.startswith(f"{TRIVIAL}:")


def content_hash(value: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(_json(value).encode()).hexdigest()[:16]


def to_table(record: RunRecord) -> Any:
    """The record in long form, cast to the present schema: a `pyarrow.Table` of one row a score, at least one."""
    import pyarrow as pa

    from subnetbench.harness.records.schema import COLUMNS, SCHEMA_MEANING, SCHEMA_VERSION, arrow_schema

    values: dict[str, Any] = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    values |= {
        "schema_version": SCHEMA_VERSION,
        "schema_meaning": SCHEMA_MEANING,
        "started_at": record.started_at.astimezone(UTC),
        "finished_at": record.finished_at.astimezone(UTC),
        "config_json": _json(record.config),
        "spec_json": _json(record.spec),
        "versions_json": _json(record.versions),
    }
    rows: list[Any] = list(record.scores) or [Score(metric="", value=0.0)]
    arrays = []
    for column in COLUMNS:
        if not column.of_score:
            arrays.append(pa.repeat(pa.scalar(values[column.name], column.type), len(rows)))
        elif column.name == "value" and not record.scores:
            arrays.append(pa.nulls(1, column.type))
        else:
            arrays.append(pa.array([getattr(score, column.name) for score in rows], column.type))
    return pa.Table.from_arrays(arrays, schema=arrow_schema())


def write_record(folder: Path | str, record: RunRecord) -> Path:
    """Write `<folder>/records/<run_id>-<attempt>.parquet` and return its path.

    The file appears whole or not at all, and is never written over: where that attempt is recorded already, the
    record takes the next free number. Raises `SubnetbenchError` when the folder cannot be written.
    """
    target = Path(folder) / RECORDS_FOLDER
    while True:
        path = target / f"{record.run_id}-{record.attempt}.parquet"
        try:
            publish_table(to_table(record), path, overwrite=False, **_SMALL_FILE)
        except FileExistsError:
            record = dataclasses.replace(record, attempt=record.attempt + 1)
        else:
            return path


def publish_table(table: Any, path: Path, *, overwrite: bool, **parquet_options: Any) -> None:
    """Write a table to `path` as `publish` does; `parquet_options` go to `pyarrow.parquet.write_table`."""
    import pyarrow.parquet as pq

    publish(path, lambda file: pq.write_table(table, file, **parquet_options), overwrite=overwrite)


def publish(path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, then give it its name in one step.

    The temporary name does not end in `.parquet`, so that globs of other readers pass over it. Raises
    `FileExistsError` if `path` exists and may not be written over, `SubnetbenchError` if the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubnetbenchError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    if not overwrite and path.exists():
        raise FileExistsError(path)
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path, overwrite)
        _flush_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise SubnetbenchError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _rename(temporary: Path, path: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike rename, it fails if another process was faster
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without hard links: the rename below is atomic, if not exclusive
        else:
            return
    os.replace(temporary, path)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
