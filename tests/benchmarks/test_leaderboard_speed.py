"""Leaderboards and comparisons of many runs. Run with `pytest tests/benchmarks/test_leaderboard_speed.py --benchmark-only`.

The limits hold for two CPU cores that nobody else uses. What counts is the best round, by wall clock or by CPU time
of the process (where other load takes the processor away), whichever is less.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special  # noqa: F401  imports are not part of what is measured

from subnetbench.harness.core.hashing import canonical_json, text_hash
from subnetbench.harness.leaderboard import Leaderboard, View, compare_formats, render
from subnetbench.harness.leaderboard.compare import compare
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.merge import merge
from subnetbench.harness.records.write import to_table

ROUNDS = 5
RUN_FILES = 3000
MERGED_ROWS = 1_000_000
SEEDS = 5
COSTS = ("parameters", "nonzero_parameters", "sparsity", "macs_executed", "macs_nonzero", "latency_median")
VERSIONS = {"numpy": "2.4.6", "python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1", "transformers": "5.24.0"}
PROVENANCE = canonical_json(
    {
        "code": dict.fromkeys(("dataset", "harness", "method"), "0123456789abcdef"),
        "data": {split: {"digest": "0123456789abcdef", "items": 800} for split in ("test", "train", "validation")},
        "environment": {"cpu": "AMD EPYC", "cuda": "", "cudnn": "", "device": "AMD EPYC", "driver": "", "threads": 1},
        "numerics": {"autocast": "", "benchmark": False, "deterministic": False, "device": "cpu", "matmul": "highest"},
    }
)
START = datetime(2025, 3, 1, 12, tzinfo=UTC)


def record(number: int, random: np.random.Generator, variants: int) -> RunRecord:
    """The record of a run as a sweep leaves it: methods, configs and seeds in turn, a few scores a variant."""
    config, seed = divmod(number, SEEDS)
    names = [f"capacity {i}" for i in range(variants)]
    scores = [
        *(Score(metric=m, value=random.random(), split="test", variant=n) for n in names for m in ("top1", "loss")),
        *(Score(metric=m, value=random.random(), variant=n) for n in names for m in COSTS),
        *(Score(metric=m, value=0.1, split="test", variant="trivial") for m in ("top1", "loss")),
    ]
    settings = {"method": f"method{config % 8}", "config": {"lr": config, "epochs": 3, "widths": list(range(20))}}
    return RunRecord(
        run_id=f"run{number}",
        status="finished",
        method=f"method{config % 8}",
        network="conv4",
        dataset="emoji",
        task="classification",
        protocol="groups of unseen concepts",
        data_digest="0123456789abcdef",
        budget="3 epochs x 1000 images",
        seed=seed,
        primary_metric="top1",
        config=settings,
        spec=settings | {"seed": seed, "data": {"name": "x" * 400}},
        scores=scores,
        wall_seconds=10.0,
        device="AMD EPYC",
        versions=VERSIONS,
        code_digest="0123456789abcdef",
        files_digest="none",
        numerics="cpu, fp32",
        provenance_json=PROVENANCE,
        training_macs=293e9,
        input_training_macs=0.0,
        images_seen=3000.0,
        steps=48.0,
        started_at=START,
        finished_at=START + timedelta(seconds=number),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of as many run files each."""
    paths = []
    for generator in (0, 1):
        paths.append(tmp_path_factory.mktemp("runs"))
        random = np.random.default_rng(generator)
        for number in range(RUN_FILES):
            write_record(paths[-1], record(number, random, variants=1))
    return paths


@pytest.fixture(scope="module")
def merged_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two merged files of `MERGED_ROWS` rows each."""
    return [_merged(tmp_path_factory.mktemp("merged"), np.random.default_rng(generator)) for generator in (0, 1)]


def _merged(folder: Path, random: np.random.Generator) -> Path:
    """What merging would leave, made quickly: the rows of one run, with other names and values many times over."""
    rows = to_table(record(0, random, variants=5))
    runs = MERGED_ROWS // len(rows) + 1
    table = rows.take(np.tile(np.arange(len(rows)), runs))
    of_run = np.repeat(np.arange(runs), len(rows))
    trivial = np.tile(np.array(rows["variant"].to_pylist()) == "trivial", runs)
    configs = [f'{{"config":{{"lr":{i}}}}}' for i in range(runs // SEEDS + 1)]

    def texts(values: list[str], codes: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), values)

    columns = {
        "record_id": texts([f"{i:032x}" for i in random.permutation(runs)], of_run),
        "run_id": texts([f"run{i}" for i in range(runs)], of_run),
        "spec_json": texts([f'{{"spec":"{i:0500}"}}' for i in range(runs)], of_run),
        "method": texts([f"method{i}" for i in range(8)], of_run // SEEDS % 8),
        "config_hash": texts([text_hash(config) for config in configs], of_run // SEEDS),
        "config_json": texts(configs, of_run // SEEDS),
        "seed": pa.array(of_run % SEEDS),
        "value": pa.array(np.where(trivial, 0.1, random.random(len(of_run)))),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, folder / "rows.parquet")
    (merged,) = merge(folder / "rows.parquet", out=folder / "merged" / "records.parquet")
    assert merged.rows >= MERGED_ROWS
    return merged.path


def within(benchmark, limit: float, work: Callable[[], object]) -> None:
    """Measure some work and check the best round against a limit in seconds."""
    wall, cpu = [], []

    def timed() -> None:
        start, processor = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - processor)

    benchmark.pedantic(timed, rounds=ROUNDS)
    print(f"\nbest of {ROUNDS}: {min(wall):.2f} s wall clock, {min(cpu):.2f} s CPU; limit {limit} s")
    assert min(*wall, *cpu) < limit


def _show(path: Path) -> None:
    board = Leaderboard(path)
    assert len(render(board, "terminal", View())) > 1000


def _compare(paths: list[Path]) -> None:
    a, b = map(Leaderboard, paths)
    assert len(compare_formats.render(compare(a, b))) > 1000


def test_leaderboard_of_run_files(benchmark, folders: list[Path]) -> None:
    within(benchmark, 2.0, lambda: _show(folders[0]))


def test_leaderboard_of_a_merged_file(benchmark, merged_files: list[Path]) -> None:
    within(benchmark, 1.0, lambda: _show(merged_files[0]))


def test_compare_run_files(benchmark, folders: list[Path]) -> None:
    within(benchmark, 3.0, lambda: _compare(folders))


def test_compare_merged_files(benchmark, merged_files: list[Path]) -> None:
    within(benchmark, 3.0, lambda: _compare(merged_files))
