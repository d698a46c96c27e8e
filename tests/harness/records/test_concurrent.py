"""Many processes record, merge and read the same folder at once: nothing lost, nothing twice, no error."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.merge import merge
from subnetbench.harness.records.read import read_records

MakeRecord = Callable[..., RunRecord]

WRITERS = 4


def _record(folder: Path, make_record: MakeRecord, first_seed: int, count: int) -> None:
    for seed in range(first_seed, first_seed + count):
        scores = [Score(metric=f"m{i}", value=seed, split="test") for i in range(3)]
        write_record(folder, make_record(f"run{seed}", seed=seed, scores=scores))


def _merge_often(folder: Path, until: float) -> None:
    while time.monotonic() < until:
        merge(folder)


def _poll(folder: Path, make_record: MakeRecord, runs_each: int, merge_seconds: float) -> None:
    """Start writers, and mergers for some seconds, and read until they are done."""
    (folder / "records").mkdir()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_record, args=(folder, make_record, 1000 * i, runs_each)) for i in range(WRITERS)]
    until = time.monotonic() + merge_seconds
    mergers = [context.Process(target=_merge_often, args=(folder, until)) for _ in range(2 if merge_seconds else 0)]
    for process in writers + mergers:
        process.start()
    seen: set[int] = set()
    while any(process.is_alive() for process in writers + mergers):
        records = read_records(folder)
        seeds = records.runs["seed"].to_pylist()
        assert len(seeds) == len(set(seeds))
        assert len(records.scores) == 3 * len(seeds)
        assert seen <= set(seeds)
        assert records.skipped == ()
        seen = set(seeds)
    for process in writers + mergers:
        process.join()
        assert process.exitcode == 0
    expected = {1000 * i + j for i in range(WRITERS) for j in range(runs_each)}
    assert set(read_records(folder).runs["seed"].to_pylist()) == expected
    assert not list((folder / "records").glob("*.tmp-*"))


def test_two_hundred_runs_by_four_processes(make_record: MakeRecord, tmp_path: Path) -> None:
    _poll(tmp_path, make_record, runs_each=50, merge_seconds=0)


def test_writers_mergers_and_a_reader(make_record: MakeRecord, tmp_path: Path) -> None:
    _poll(tmp_path, make_record, runs_each=25, merge_seconds=4)


def test_the_same_run_recorded_by_all_at_once(make_record: MakeRecord, tmp_path: Path) -> None:
    """Each writer gets an attempt number of its own."""
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write_record, args=(tmp_path, make_record("same", seed=i))) for i in range(2 * WRITERS)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    runs = read_records(tmp_path).runs
    assert sorted(runs["attempt"].to_pylist()) == list(range(1, 2 * WRITERS + 1))
    assert sorted(runs["seed"].to_pylist()) == list(range(2 * WRITERS))
