"""A made-up record to start from."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from subnetbench.harness.records import RunRecord, Score

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
            "protocol": "concept-disjoint",
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
        return RunRecord(**(values | changes))

    return make
