"""What the report tells of single runs: where they ran, what they printed, how they learned, how to repeat them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from subnetbench.harness.report.command import command_of
from subnetbench.harness.report.history import read_history
from subnetbench.harness.report.texts import clean_lines, significant_row
from subnetbench.harness.run_folder import RunFolder

_FACTS = (
    *("run_id", "attempt", "seed", "status", "error_kind", "error", "sweep", "study", "trial"),
    *("started_at", "finished_at", "wall_seconds", "train_seconds", "gpu_hours", "world_size", "device", "threads"),
    *("precision", "git_sha", "git_dirty", "slurm_job_id", "n_requeue", "record_id"),
)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TAIL_BYTES = 2**14


@dataclass(frozen=True)
class Detail:
    """How much is told of a run: points of a curve, lines of its log, and whether its machine is named."""

    points: int = 100
    lines: int = 40
    private: bool = True
    """Host names, folders and logs too; not for publication."""


def describe_runs(runs: pa.Table, places: Sequence[int], detail: Detail) -> list[dict[str, Any]]:
    """The records at some places of `RecordSet.runs` (read with all columns), as plain JSON."""
    chosen = runs.take(pa.array(list(places), pa.int64())).to_pylist()
    return [_describe(record, detail) for record in chosen]


def _describe(record: dict[str, Any], detail: Detail) -> dict[str, Any]:
    facts = {name: record[name] for name in _FACTS}
    facts |= {name: record[name].isoformat(timespec="seconds") for name in ("started_at", "finished_at")}
    facts["versions"] = _mapping(record["versions_json"])
    facts["command"] = command_of(record["spec_json"])
    folder = _folder_of(record)
    facts["history"] = {
        tag: [tuple(steps), significant_row(values, 5)]
        for tag, (steps, values) in (
            read_history(folder.path, detail.points) if folder and detail.points else {}
        ).items()
    }
    if detail.private:
        facts["host"] = record["host"]
        facts["file"] = str(record["file"])
        facts["log"] = _log_tail(folder, detail.lines) if folder else ""
    return facts


def _folder_of(record: dict[str, Any]) -> RunFolder | None:
    """The folder of a run beside its record, if it is there. A record may say anything of its id: no paths."""
    run_id = record["run_id"]
    if not _RUN_ID.fullmatch(run_id):
        return None
    folder = RunFolder(Path(record["file"]).parent.parent, run_id)
    return folder if folder.path.is_dir() else None


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
