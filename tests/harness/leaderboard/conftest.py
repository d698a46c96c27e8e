"""A folder of made-up runs to rank, filter and compare."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from subnetbench.harness.core.protocols import protocols_of
from subnetbench.harness.records import RunRecord, Score, write_record

START = datetime(2025, 3, 1, 12, tzinfo=UTC)

AddRun = Callable[..., RunRecord]


class Folder:
    """Writes runs into a folder, each a little later than the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = 0

    def add(self, top1: float | None = 0.5, **changes: Any) -> RunRecord:
        """One run; `top1` is its only score, unless `scores` are given."""
        self._written += 1
        start = START + timedelta(minutes=self._written)
        seed = changes.get("seed", 0)
        values: dict[str, Any] = {
            "run_id": f"run{self._written}",
            "status": "finished",
            "method": "edge_popup",
            "network": "conv2",
            "dataset": "emoji",
            "task": "classification",
            "protocol": "groups of unseen concepts",
            "data_digest": "d1",
            "budget": "3 epochs",
            "seed": seed,
            "primary_metric": "top1",
            "started_at": start,
            "finished_at": start + timedelta(seconds=9),
            "wall_seconds": 9.0,
            "config": {"config": {"sparsity": 0.5}},
            "scores": [] if top1 is None else [self.top1(top1)],
        }
        values |= changes
        if "protocol" not in changes:
            values["protocol"] = (*protocols_of(values["dataset"], values["task"]), values["protocol"])[0]
        record = RunRecord(**values)
        write_record(self.path, record)
        return record

    def seeds(self, values: Iterable[float], **changes: Any) -> list[RunRecord]:
        """Runs of seeds 0, 1, 2, ... that differ in nothing else."""
        return [self.add(value, seed=seed, **changes) for seed, value in enumerate(values)]

    @staticmethod
    def top1(value: float, variant: str = "full", split: str = "test") -> Score:
        return Score(metric="top1", value=value, split=split, variant=variant)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "a")


@pytest.fixture
def other_folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "b")
