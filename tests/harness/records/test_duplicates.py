"""Records with one id: copies count once; other content under the same id is a fault that is said."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.records import RunRecord, Score, read_records, write_record
from subnetbench.harness.records.merge import merge

MakeRecord = Callable[..., RunRecord]


def test_a_copy_counts_once(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path / "a", make_record())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    records = read_records([tmp_path / "a", tmp_path / "b"])
    assert (len(records.runs), records.duplicates, records.faults) == (1, 1, ())


def test_the_order_of_scores_does_not_matter(make_record: MakeRecord, tmp_path: Path) -> None:
    scores = [Score(metric="top1", value=v, split="test", variant=n) for n, v in (("a", 0.5), ("b", 0.6))]
    write_record(tmp_path / "a", make_record(record_id="same", scores=scores))
    write_record(tmp_path / "b", make_record(record_id="same", scores=scores[::-1]))
    assert read_records(tmp_path).faults == ()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"status": "failed", "error_kind": "nan"},
        {"run_id": "other"},
        {"wall_seconds": 3.0},
        {"scores": [Score(metric="top1", value=0.9, split="test", variant="full")]},
        {"scores": []},
    ],
)
@pytest.mark.parametrize("columns", [None, ["seed"]])
def test_other_content_under_one_id_is_a_fault_of_all(
    make_record: MakeRecord, tmp_path: Path, change: dict[str, Any], columns: list[str] | None
) -> None:
    first = make_record(record_id="same")
    write_record(tmp_path / "a", first)
    write_record(tmp_path / "b", make_record(**({"record_id": "same"} | change)))
    write_record(tmp_path / "c", make_record("third", seed=3))
    records = read_records(tmp_path, columns)
    assert (records.runs["seed"].to_pylist(), records.invalid, records.duplicates) == ([3], 2, 0)
    assert {(fault.field, fault.value) for fault in records.faults} == {("record_id", "same")}
    assert "2 records not valid and left out (2 x record_id)" in records.left_out()[0]
    result = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    assert "record_id: 'same' (allowed: an id of its own" in result.output


def test_an_invalid_copy_does_not_take_the_sound_record_with_it(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path / "a", make_record(record_id="same"))
    wrong = [Score(metric="top1", value=1.7, split="test", variant="full")]
    write_record(tmp_path / "b", make_record(record_id="same", scores=wrong))
    records = read_records(tmp_path)
    assert (len(records.runs), records.invalid) == (1, 1)


def test_merging_leaves_contradictions_where_they_are(make_record: MakeRecord, tmp_path: Path) -> None:
    for number in range(3):
        write_record(tmp_path, make_record(f"run{number}", seed=number))
    write_record(tmp_path, make_record("x", record_id="same"))
    write_record(tmp_path, make_record("y", record_id="same", finished_at=make_record().finished_at + timedelta(1)))
    (merged,) = merge(tmp_path)
    assert (merged.records, len(merged.faults)) == (3, 2)
    assert len(list((tmp_path / "records").glob("*.parquet"))) == 3
    assert read_records(tmp_path).invalid == 2


def test_what_is_left_out_does_not_depend_on_the_columns_that_are_asked_for(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    write_record(tmp_path, make_record("a"))
    write_record(tmp_path, make_record("b", config_hash="0" * 16))
    write_record(tmp_path, make_record("c", spec={"version": 1, "method": "m", "inputs": {}}))
    write_record(tmp_path, make_record("d", n_requeue=-1))
    for columns in (None, ["run_id"], ["run_id", "config_json"]):
        records = read_records(tmp_path, columns)
        assert records.runs["run_id"].to_pylist() == ["a"]
        assert {fault.field for fault in records.faults} == {"config_hash", "spec_json", "n_requeue"}
    assert "config_json" not in read_records(tmp_path, ["run_id"]).runs.column_names
