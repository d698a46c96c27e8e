"""Leaderboards with intervals over test items. Run with `pytest tests/benchmarks/test_item_speed.py --benchmark-only`."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from subnetbench.harness.leaderboard import Leaderboard, Settings, compare, render
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.items import ItemSet, ItemValues
from subnetbench.harness.records.items_file import items_of, write_items
from subnetbench.tests.benchmarks.test_leaderboard_speed import within

START = datetime(2025, 3, 1, 12, tzinfo=UTC)
METRICS = (
    "map",
    "recall_at_1",
    "recall_at_2",
    "recall_at_4",
    "recall_at_8",
    "r_precision",
    "map_at_r",
    "map_trapezoid",
)
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a folder of runs with outcomes by item."""

    def made(methods: int, seeds: int, items: int, clusters: int, metrics: tuple[str, ...], variants: int) -> Path:
        folder, random = tmp_path_factory.mktemp("items"), np.random.default_rng(0)
        cluster = np.arange(items) % clusters
        of = ItemSet("query", np.arange(items), np.zeros(items), ("a",), cluster)
        for number in range(methods * seeds):
            values = {
                (metric, variant): ItemValues(of, (random.random(items) < 0.6).astype(float))
                for metric in metrics
                for variant in range(variants)
            }
            scores = [
                Score(metric=metric, value=each.mean, split="test", variant=f"v{variant}", items=each)
                for (metric, variant), each in values.items()
            ]
            record = RunRecord(
                run_id=f"run{number}",
                status="finished",
                method=f"method{number // seeds}",
                dataset="emoji",
                task="retrieval",
                protocol="groups of unseen concepts",
                data_digest="0123456789abcdef",
                seed=number % seeds,
                primary_metric=metrics[0],
                started_at=START,
                finished_at=START + timedelta(seconds=number),
                scores=scores,
            )
            digest = write_items(folder, record.record_id, items_of(scores)).digest
            write_record(folder, replace(record, items_digest=digest))
        return folder

    return made


def _show(folder: Path) -> None:
    board = Leaderboard(folder)
    assert len(render(board, "csv")) > 1000
    assert set(board.frame(metrics=board.default_metrics[:1])["interval"]) == {"joint"}


def test_39_runs_of_800_queries(benchmark, make: Make) -> None:
    folder = make(13, 3, 800, 160, METRICS, 1)
    within(benchmark, 1.0, lambda: _show(folder))


def test_ten_networks_on_10_000_images(benchmark, make: Make) -> None:
    folder = make(1, 5, 10_000, 10_000, ("top1", "top5"), 10)
    within(benchmark, 3.0, lambda: _show(folder))


def test_comparing_by_item(benchmark, make: Make) -> None:
    folder = make(13, 3, 800, 160, METRICS, 1)
    settings = Settings(a="method == 'method0'", b="method != 'method0'", metrics=METRICS)
    within(benchmark, 2.0, lambda: compare(folder, None, settings))
