"""What listings, merging and the command `validate` do with records that cannot be true."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.leaderboard import Leaderboard, compare, render
from subnetbench.harness.leaderboard.compare_formats import render as render_differences
from subnetbench.harness.records import RunRecord, write_record
from subnetbench.harness.records.merge import merge
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.write import to_table

MakeRecord = Callable[..., RunRecord]
Put = Callable[..., Path]
OLD = Path(__file__).parents[2] / "data" / "version_0_1"


def test_other_records_of_a_merged_file_stay(sound: MakeRecord, tmp_path: Path) -> None:
    tables = [to_table(sound(seed)) for seed in range(3)]
    column = tables[1].column_names.index("value")
    tables[1] = tables[1].set_column(column, tables[1].schema.field(column), pa.array([1.7, 1.0, 0.225, 1.97]))
    (tmp_path / "records").mkdir()
    pq.write_table(pa.concat_tables(tables), tmp_path / "records" / "merged-1.parquet")
    records = read_records(tmp_path)
    assert records.runs["seed"].to_pylist() == [0, 2]
    assert len(records.scores) == 8
    assert set(records.scores["run"].to_pylist()) == {0, 1}


def test_a_faulty_copy_does_not_stand_in_for_the_record(put: Put, sound: MakeRecord, tmp_path: Path) -> None:
    record = sound()
    put(tmp_path / "a", record, row=0, value=1.7)
    put(tmp_path / "b", record)
    records = read_records(tmp_path)
    assert (len(records.runs), records.invalid, records.duplicates) == (1, 1, 0)
    assert "/b/" in records.runs["file"][0].as_py()


def test_listings_say_what_was_left_out(put: Put, sound: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, sound(1))
    put(tmp_path, sound(0), row=0, value=1.7)
    for format in ("terminal", "markdown", "latex"):
        text = " ".join(render(Leaderboard(tmp_path), format).split())
        assert "1 record not valid and left out (1 x top1)" in text
    assert "top1 of full on test: 1.7 (allowed: finite, 0 to 1)" in render(Leaderboard(tmp_path), "markdown")
    compared = " ".join(render_differences(compare(tmp_path, OLD)).split())
    assert "In a: 1 record not valid and left out" in compared
    assert "In b:" not in compared
    assert Leaderboard(tmp_path).frame(metrics=["top1"])["mean"].tolist() == [0.5]


@pytest.mark.parametrize(
    "columns", [{"run_id": "edge_popup-emoji-s0-0123456789"}, {"precision": "fp64"}, {"config_hash": "0123456789"}]
)
def test_a_leaderboard_reads_what_it_needs_to_check_each_field(
    put: Put, sound: MakeRecord, tmp_path: Path, columns: dict[str, str]
) -> None:
    write_record(tmp_path, sound(1))
    put(tmp_path, sound(0), **columns)
    board = Leaderboard(tmp_path)
    assert board.records.invalid == 1
    assert board.frame(metrics=["top1"])["seeds"].tolist() == [1]


def test_listings_without_notes_log_what_was_left_out(
    put: Put, make_record: MakeRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, sparsity in enumerate((0.2, 0.4, 0.6)):
        record = make_record(f"r{seed}", config={"config": {"sparsity": sparsity}})
        put(tmp_path, record, row=0, value=0.5 + seed)
    for listing in (lambda: api.sources(tmp_path), lambda: api.merge(tmp_path)):
        caplog.clear()
        listing()
        assert "2 records not valid and left out" in caplog.text
    caplog.clear()
    with pytest.raises(api.UserError):
        api.curve(tmp_path, "sparsity")
    assert "2 records not valid and left out" in caplog.text


def test_many_faults_are_counted_and_some_are_shown(put: Put, make_record: MakeRecord, tmp_path: Path) -> None:
    for seed in range(7):
        put(tmp_path, make_record(f"r{seed}", seed=seed), row=0, value=2.0)
    head, *lines = read_records(tmp_path).left_out()
    assert head == "7 records not valid and left out (7 x top1):"
    assert len(lines) == 5
    assert lines[-1] == "  and 3 more"


def test_merging_leaves_files_with_invalid_records_alone(put: Put, sound: MakeRecord, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_record(tmp_path, sound(seed))
    bad = put(tmp_path, sound(0), row=0, value=1.7)
    (merged,) = merge(tmp_path)
    assert (merged.records, merged.invalid, len(merged.removed)) == (2, 1, 2)
    assert [fault.path for fault in merged.faults] == [bad]
    assert bad.exists()
    (into,) = merge(tmp_path, tmp_path / "all.parquet")
    assert (into.records, into.invalid) == (2, 1)
    assert read_records(tmp_path / "all.parquet").faults == ()
    done = CliRunner().invoke(app, ["merge", str(tmp_path), "--out", str(tmp_path / "again.parquet")])
    assert done.exit_code == 0, done.output
    assert f"not merged: {bad}" in done.output


def test_the_command_prints_each_fault_and_fails(put: Put, sound: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, sound(1))
    good = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert (good.exit_code, good.output) == (0, "1 valid records, 0 invalid, in 1 files\n0 with scores by item\n")
    bad = put(tmp_path, sound(0), row=0, value=1.7)
    (tmp_path / "records" / "junk.parquet").write_bytes(b"junk")
    done = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{bad}: {sound(0).run_id}: top1 of full on test: 1.7 (allowed: finite, 0 to 1)" in done.output
    assert "junk.parquet: file: " in done.output
    plain = json.loads(CliRunner().invoke(app, ["validate", str(tmp_path), "--json"]).output)
    assert (plain["valid"], plain["records"], plain["invalid"], plain["files"]) == (False, 1, 1, 3)
    assert {"path": str(bad), "run_id": sound(0).run_id, "field": "top1 of full on test", "value": 1.7} | {
        "allowed": "finite, 0 to 1"
    } in plain["faults"]
