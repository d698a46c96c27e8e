"""Making a run again: what is checked, what is compared, and what the command says and returns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subnetbench.harness.api.reproducing import Outcome, compare_scores, find_recorded
from subnetbench.harness.api.reproduction_checks import Check
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.records import RunRecord, Score, write_record

PROGRAM = Path(sys.executable).with_name("subnetbench")
TINY = ("--set", "network=conv2", "--set", "image_size=8", "--set", "limit_steps=2", "--epochs", "1")


def _run(folder: Path, *words: object, check: int | None = 0) -> str:
    done = subprocess.run(
        [str(PROGRAM), *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert check is None or done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one tiny run lies below results/runs."""
    folder = tmp_path_factory.mktemp("reproduce")
    _run(folder, "run", "edge_popup", "emoji", *TINY, "--device", "cpu")
    return folder


@pytest.mark.slow
def test_a_run_comes_out_the_same_bit_for_bit(trained: Path) -> None:
    said = _run(trained, "reproduce", "edge_popup", "--out", "results/runs")
    assert "scores are equal bit for bit" in said
    assert "trained weights are equal bit for bit" in said
    assert "0 outcomes by item differ" in said
    (folder,) = (trained / "reproduced").iterdir()
    assert len(list((folder / "records").glob("*.parquet"))) == 1
    # The folder of results is as it was: what was made again counts as no further run of it.
    assert len(list((trained / "results").glob("**/records/*.parquet"))) == 1
    assert len(list((trained / "results").glob("**/items/*.parquet"))) == 1


def _altered(trained: Path, to: Path, columns: dict[str, Callable[[dict[str, Any]], Any]]) -> Path:
    """A copy of the trained run's record with some columns changed."""
    (file,) = (trained / "results" / "runs" / "records").glob("*.parquet")
    table = pq.read_table(file)
    for name, change in columns.items():
        kind = table.schema.field(name)
        values = pa.array([change(row) for row in table.to_pylist()], kind.type)
        table = table.set_column(table.column_names.index(name), kind, values)
    (to / "records").mkdir(parents=True)
    pq.write_table(table, to / "records" / file.name)
    return to


@pytest.mark.slow
def test_a_score_that_differs_is_told_and_decides_the_status(trained: Path, tmp_path: Path) -> None:
    def change(row: dict[str, Any]) -> float:
        score = (row["metric"], row["split"], row["variant"])
        return float(row["value"] + (1e-9 if score == ("top1", "test", "subnetwork") else 0))

    results = _altered(trained, tmp_path / "changed", {"value": change})
    said = _run(tmp_path, "reproduce", "edge_popup", "--out", results, check=1)
    assert "1 of" in said
    assert "scores differ, by 1e-09 at most" in said
    assert "of the recorded run are gone" in said


@pytest.mark.slow
def test_other_versions_and_data_are_told_without_running(trained: Path, tmp_path: Path) -> None:
    changes = {
        "versions_json": lambda row: json.dumps({"python": "2.7.18"}),
        "data_digest": lambda row: "0" * 16,
    }
    results = _altered(trained, tmp_path / "old", changes)
    said = _run(tmp_path, "reproduce", "edge_popup", "--out", results, "--check", check=1)
    differing = {line.split("DIFFERS")[0].strip() for line in said.splitlines() if "DIFFERS" in line}
    assert {"python", "torch", "data digest"} <= differing
    assert "run id" not in differing
    assert not (tmp_path / "reproduced").exists()


def test_the_largest_difference_is_what_a_tolerance_is_held_against(tmp_path: Path) -> None:
    keys = [("test", "full", "", name) for name in ("top1", "loss")]
    assert Outcome(tmp_path, 2, {}, None).largest == 0
    assert Outcome(tmp_path, 2, {keys[0]: (0.5, 0.25), keys[1]: (1.0, 1.125)}, None).largest == 0.25
    assert Outcome(tmp_path, 2, {keys[0]: (None, 0.25)}, None).largest == float("inf")


def _record(folder: Path, run_id: str, value: float, minute: int = 0, status: str = "finished") -> None:
    at = datetime(2025, 3, 1, 12, minute, tzinfo=UTC)
    scores = [Score(metric="top1", value=value, split="test", variant="full")]
    write_record(
        folder,
        RunRecord(
            run_id=run_id, status=status, method="dense", dataset="mine", task="classification", protocol="p",
            data_digest="d", seed=0, started_at=at, finished_at=at, primary_metric="top1", scores=scores,
        ),
    )  # fmt: skip


def test_records_are_found_by_the_beginning_of_an_id(tmp_path: Path) -> None:
    _record(tmp_path, "run-a", 0.1)
    _record(tmp_path, "run-a", 0.2, minute=5)
    _record(tmp_path, "run-a", 0.3, minute=9, status="failed")
    _record(tmp_path, "run-ab", 0.4)
    found = find_recorded("run-a", tmp_path)  # one whole id, though the beginning of another
    assert found.run_id == "run-a"
    assert found.scores == {("test", "full", "", "top1"): 0.2}
    assert find_recorded("run-ab", tmp_path).run_id == "run-ab"
    with pytest.raises(UserError, match="2 runs begin with it"):
        find_recorded("run", tmp_path)
    with pytest.raises(UserError, match="did you mean 'run-ab'"):
        find_recorded("rum-ab", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_recorded("run", tmp_path / "nowhere")


def test_scores_are_compared_by_their_bits_and_times_not_at_all() -> None:
    key = ("test", "full", "", "top1")
    nan = float("nan")
    a = {key: 0.1 + 0.2, ("", "full", "", "latency_ms"): 1.0, ("test", "full", "", "map"): nan}
    assert compare_scores(a, {**a, ("", "full", "", "latency_ms"): 2.0}) == {}
    assert compare_scores(a, {**a, key: 0.3}) == {key: (0.1 + 0.2, 0.3)}
    assert compare_scores({key: 0.0}, {key: -0.0}) == {key: (0.0, -0.0)}
    assert compare_scores({key: 1.0}, {}) == {key: (1.0, None)}


def test_uncommitted_changes_never_count_as_the_same_code() -> None:
    dirty = "0123456789ab with changes that were not committed"
    assert not Check("code", dirty, dirty).same
    assert Check("code", "0123456789ab", "0123456789ab").same
