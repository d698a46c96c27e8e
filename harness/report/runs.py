"""What the report shows of single runs: where they ran, their log, learning curves, and the command that repeats them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from subnetbench.harness.records.schema import run_columns
from subnetbench.harness.report.history import read_history
from subnetbench.harness.report.texts import clean_lines, significant_row
from subnetbench.harness.report.types import Curve, Run
from subnetbench.harness.runs.command import command_of
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.lookup import folder_beside

_TAIL_BYTES = 2**14
_COLUMNS = [
    field.name
    for field in fields(Run)
    if field.name in run_columns() and field.name not in ("started_at", "finished_at", "host")
]


@dataclass(frozen=True)
class Detail:
    """How much is shown of a run: points of a curve, lines of its log, and whether its machine is named."""

    points: int = 100
    lines: int = 40
    private: bool = True
    """Host names, folders and logs too; not for publication."""


def describe_runs(runs: pa.Table, indices: Sequence[int], detail: Detail) -> list[Run]:
    """Some records of `RecordSet.runs` (read with all columns), with what their run folders hold."""
    chosen = runs.take(pa.array(list(indices), pa.int64())).to_pylist()
    return [_describe(record, detail) for record in chosen]


def _describe(record: Mapping[str, Any], detail: Detail) -> Run:  # open: a row of a table, with the columns of `schema`
    folder = folder_beside(Path(record["file"]), record["run_id"])
    history = read_history(folder.path, detail.points) if folder and detail.points else {}
    return Run(
        **{name: record[name] for name in _COLUMNS},
        started_at=record["started_at"].isoformat(timespec="seconds"),
        finished_at=record["finished_at"].isoformat(timespec="seconds"),
        versions=_mapping(record["versions_json"]),
        command=command_of(record["spec_json"]),
        history={tag: Curve(tuple(steps), significant_row(values, 5)) for tag, (steps, values) in history.items()},
        host=record["host"] if detail.private else None,
        file=str(record["file"]) if detail.private else None,
        log=(_log_tail(folder, detail.lines) if folder else "") if detail.private else None,
    )


def _log_tail(folder: RunFolder, lines: int) -> str:
    try:
        with open(folder.log_file, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return clean_lines(text, lines)


def _mapping(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(item) for name, item in value.items()} if isinstance(value, dict) else {}
