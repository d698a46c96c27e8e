"""Made-up records to start from, and a way to write them with something changed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subnetbench.harness.core.protocols import protocols_of
from subnetbench.harness.records import RunRecord, Score
from subnetbench.harness.records.write import to_table
from subnetbench.harness.runs.spec import RunSpec

OLD = Path(__file__).parents[2] / "data" / "version_0_1"
SPEC = json.loads(next(OLD.glob("**/runs/edge_popup*/spec.json")).read_text())
START = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    def make(run_id: str = "run", **changes: Any) -> RunRecord:
        values: dict[str, Any] = {
            "run_id": run_id,
            "status": "finished",
            "method": "edge_popup",
            "dataset": "emoji",
            "task": "classification",
            "protocol": "groups of unseen concepts",
            "data_digest": "d1",
            "seed": 0,
            "primary_metric": "top1",
            "started_at": START,
            "finished_at": START + timedelta(seconds=9),
            "config": {"sparsity": 0.5},
            "scores": [
                Score(metric="top1", value=0.5, split="test", variant="full"),
                Score(metric="sparsity", value=0.5, variant="full"),
            ],
        }
        values |= changes
        if "protocol" not in changes:
            values["protocol"] = (*protocols_of(values["dataset"], values["task"]), values["protocol"])[0]
        return RunRecord(**values)

    return make


@pytest.fixture
def sound(make_record: Callable[..., RunRecord]) -> Callable[..., RunRecord]:
    """Make the record of a run with a true spec, as runs write it."""

    def make(seed: int = 0, **changes: Any) -> RunRecord:
        spec = RunSpec.model_validate({**SPEC, "seed": seed})
        scores = [
            Score(metric="top1", value=0.5, split="test", variant="full"),
            Score(metric="macs_executed", value=1e6, variant="full"),
            Score(metric="top1", value=0.225, split="test", variant="trivial"),
            Score(metric="loss", value=1.97, split="test", variant="trivial"),
        ]
        values = {"method": spec.method, "dataset": spec.dataset, "task": spec.task, "seed": seed, "precision": "fp32"}
        values |= {"config": spec.recipe(), "config_hash": spec.config_hash, "spec": spec.model_dump(mode="json")}
        return make_record(**({"run_id": spec.run_id, "scores": scores} | values | changes))

    return make


@pytest.fixture
def put() -> Callable[..., Path]:
    """Write a record with some columns changed, in one row or in all: put(folder, record, row=None, **columns)."""

    def write(folder: Path, record: RunRecord, row: int | None = None, **columns: Any) -> Path:
        table = to_table(record)
        for name, value in columns.items():
            at = table.column_names.index(name)
            old = table[name].to_pylist()
            values = [value if row in (None, i) else each for i, each in enumerate(old)]
            table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        path = folder / "records" / f"{record.record_id}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path

    return write
