import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.schema import COLUMNS, SCHEMA_VERSION, arrow_schema

MakeRecord = Callable[..., RunRecord]


def test_every_value_comes_back(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(
        scores=[
            Score(metric="recall_at_1", value=1 / 3, split="test", variant="sub", gallery_variant="full"),
            Score(metric="parameters", value=12, variant="sub"),
        ],
        spec={"method": "edge_popup", "config": {"lr": 0.1}},
        versions={"torch": "2.11"},
        tuned=True,
        trial=7,
        wall_seconds=9.5,
        git_dirty=True,
        host="höst",
        n_requeue=2,
    )
    rows = pq.read_table(write_record(tmp_path, record)).to_pylist()
    assert [row["value"] for row in rows] == [1 / 3, 12.0]
    assert [row["gallery_variant"] for row in rows] == ["full", ""]
    for row in rows:
        assert row["record_id"] == record.record_id
        assert (row["trial"], row["wall_seconds"], row["host"], row["n_requeue"]) == (7, 9.5, "höst", 2)
        assert row["tuned"] is True
        assert row["git_dirty"] is True
        assert row["gpu_hours"] is None
        assert row["spec_json"] == '{"config":{"lr":0.1},"method":"edge_popup"}'
        assert row["started_at"] == record.started_at
        assert row["schema_version"] == SCHEMA_VERSION


def test_a_file_has_exactly_the_declared_columns(make_record: MakeRecord, tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    assert pq.read_schema(path).equals(arrow_schema())
    fields = set(RunRecord.__dataclass_fields__) | set(Score.__dataclass_fields__)
    derived = {"schema_version", "schema_meaning", "config_json", "spec_json", "versions_json"}
    assert fields | derived == {column.name for column in COLUMNS} | {"scores", "config", "spec", "versions", "items"}


def test_a_run_without_scores_leaves_a_row(make_record: MakeRecord, tmp_path: Path) -> None:
    trace = "\nValueError: too bad \ud800\n  at line 3\n" + "x" * 10_000
    write_record(tmp_path, make_record(status="failed", scores=(), error=trace, error_kind="error"))
    (row,) = read_records(tmp_path).long().to_pylist()
    assert (row["status"], row["metric"], row["value"]) == ("failed", "", None)
    assert (row["error_kind"], row["error"]) == ("error", "ValueError: too bad ?")


def test_the_config_hash_does_not_depend_on_order_or_seed(make_record: MakeRecord) -> None:
    one = make_record(config={"a": 1, "b": [1, 2]}, seed=1)
    other = make_record(config={"b": [1, 2], "a": 1}, seed=2)
    assert one.config_hash == other.config_hash
    assert one.config_hash != make_record(config={"a": 1, "b": [2, 1]}).config_hash
    with pytest.raises(ValueError, match="seed"):
        make_record(config={"seed": 1})


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".hidden", "a b", "x" * 200, "a\n"])
def test_ids_that_are_no_file_names_are_refused(make_record: MakeRecord, run_id: str) -> None:
    with pytest.raises(ValueError, match="run_id"):
        make_record(run_id)


def test_other_time_zones_are_stored_as_utc(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    with pytest.raises(ValueError, match="time zone"):
        make_record(started_at=datetime(2025, 1, 1))
    there = record.started_at.astimezone(timezone(timedelta(hours=9)))
    path = write_record(tmp_path, make_record(started_at=there))
    assert pq.read_table(path)["started_at"][0].as_py() == record.started_at


def test_nothing_is_written_over(make_record: MakeRecord, tmp_path: Path) -> None:
    paths = [write_record(tmp_path, make_record("r", seed=seed)) for seed in (1, 2, 3)]
    assert [path.name for path in paths] == ["r-1.parquet", "r-2.parquet", "r-3.parquet"]
    runs = read_records(tmp_path).runs.to_pylist()
    assert [(run["seed"], run["attempt"]) for run in runs] == [(1, 1), (2, 2), (3, 3)]
    assert sorted(p.name for p in (tmp_path / "records").iterdir()) == [path.name for path in paths]


def test_without_hard_links_a_record_is_still_written(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    for _ in range(2):
        write_record(tmp_path, make_record("r"))
    assert len(read_records(tmp_path).runs) == 2


def test_a_folder_that_cannot_be_written_is_one_clear_error(make_record: MakeRecord, tmp_path: Path) -> None:
    (tmp_path / "records").write_text("I am a file")
    with pytest.raises(SubnetbenchError, match=r"cannot make the folder .*records"):
        write_record(tmp_path, make_record())


def test_a_full_disk_leaves_nothing_behind(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SubnetbenchError, match="No space left"):
        write_record(tmp_path, make_record())
    assert list((tmp_path / "records").iterdir()) == []


def test_a_value_of_a_wrong_type_is_refused(make_record: MakeRecord, tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_record(tmp_path, make_record(seed="one"))
    assert not list(tmp_path.rglob("*.parquet*"))


def test_importing_records_is_cheap() -> None:
    code = (
        "import sys, subnetbench.harness.records\n"
        "assert not {'torch', 'pyarrow', 'pandas', 'numpy'} & set(sys.modules)\n"
        "import subnetbench.harness.records.read, subnetbench.harness.records.merge\n"
        "assert not {'torch', 'transformers', 'accelerate', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
