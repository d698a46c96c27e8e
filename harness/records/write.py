"""Records as files: one immutable parquet file for each attempt at a run."""

import dataclasses
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa

from subnetbench.harness.core.files import publish_table
from subnetbench.harness.core.hashing import canonical_json
from subnetbench.harness.records import schema
from subnetbench.harness.records.record import RECORDS_FOLDER, RunRecord, Score

# A leaderboard opens thousands of these files, and most of its time goes into footers and page headers: no
# statistics, no second copy of the schema, and dictionary pages only for the long texts.
_SMALL_FILE: dict[str, Any] = {  # open: options of pyarrow
    "compression": "snappy",
    "write_statistics": False,
    "store_schema": False,
    "use_dictionary": ["config_json", "spec_json", "versions_json", "provenance_json"],
}


def to_table(record: RunRecord) -> pa.Table:
    """The record in long form, cast to the present schema: one row a score, at least one."""
    values: dict[str, object] = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    values |= {
        "schema_version": schema.SCHEMA_VERSION,
        "schema_meaning": schema.SCHEMA_MEANING,
        "started_at": record.started_at.astimezone(UTC),
        "finished_at": record.finished_at.astimezone(UTC),
        "config_json": canonical_json(record.config, strict=False),
        "spec_json": canonical_json(record.spec, strict=False),
        "versions_json": canonical_json(record.versions, strict=False),
    }
    rows = list(record.scores) or [Score(metric="", value=0.0)]
    arrays = []
    for column in schema.COLUMNS:
        if not column.of_score:
            arrays.append(pa.repeat(pa.scalar(values[column.name], column.type), len(rows)))
        elif column.name == "value" and not record.scores:
            arrays.append(pa.nulls(1, column.type))
        else:
            arrays.append(pa.array([getattr(score, column.name) for score in rows], column.type))
    return pa.Table.from_arrays(arrays, schema=schema.arrow_schema())


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
