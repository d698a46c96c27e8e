import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.records import RunRecord, Score, blocks, schema, write_record
from subnetbench.harness.records import read as reading
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.schema import Column
from subnetbench.harness.records.write import to_table

MakeRecord = Callable[..., RunRecord]


@pytest.fixture
def folder(make_record: MakeRecord, tmp_path: Path) -> Path:
    """A folder with two sound records."""
    for seed in (0, 1):
        write_record(tmp_path, make_record(f"sound{seed}", seed=seed))
    return tmp_path


def _seeds(records: reading.RecordSet) -> list[int]:
    return sorted(records.runs["seed"].to_pylist())


def _put(folder: Path, table: pa.Table, name: str = "odd.parquet", **options: Any) -> Path:
    path = folder / "records" / name
    pq.write_table(table, path, **options)
    return path


def _replace(table: pa.Table, name: str, array: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, array)


def test_folders_files_and_copies_are_found(make_record: MakeRecord, tmp_path: Path) -> None:
    deep = tmp_path / "results" / "sweep" / "deeper"
    paths = [write_record(deep, make_record("a")), write_record(tmp_path / "results", make_record("b"))]
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "c.parquet").write_bytes(paths[0].read_bytes())
    assert len(read_records(tmp_path / "results").runs) == 2
    assert read_records(paths[0]).runs["run_id"].to_pylist() == ["a"]
    assert read_records(deep / "records").runs["run_id"].to_pylist() == ["a"]
    assert read_records(copies).runs["run_id"].to_pylist() == ["a"]
    both = read_records([tmp_path / "results", copies, copies / "c.parquet"])
    assert (len(both.runs), both.duplicates, len(both.files)) == (2, 1, 3)
    with pytest.raises(UserError, match="no such file"):
        read_records(tmp_path / "nowhere")


def test_an_empty_folder_is_an_empty_set(tmp_path: Path) -> None:
    records = read_records(tmp_path)
    assert (len(records.runs), len(records.scores), records.long().num_rows) == (0, 0, 0)


def test_temporary_hidden_and_other_files_are_passed_over(folder: Path) -> None:
    for name in (".x.parquet", "_x.parquet", "x.parquet.tmp-1", "notes.txt"):
        (folder / "records" / name).write_bytes(b"junk")
    (folder / "records" / "folder.parquet").mkdir()
    assert read_records(folder).skipped == ()


def test_rows_belong_to_their_runs(folder: Path, make_record: MakeRecord) -> None:
    write_record(folder, make_record("other", seed=5, scores=[Score(metric="m", value=v) for v in (1.0, 2.0)]))
    records = read_records(folder)
    by_seed: dict[int, list[float]] = {}
    for row in records.long().to_pylist():
        by_seed.setdefault(row["seed"], []).append(row["value"])
    assert by_seed == {0: [0.5, 0.5], 1: [0.5, 0.5], 5: [1.0, 2.0]}
    assert Path(records.runs["file"][0].as_py()).name == "other-1.parquet"


def test_only_wanted_columns_are_read(folder: Path) -> None:
    names = read_records(folder, ["method"]).runs.column_names
    assert "method" in names
    assert "config_json" not in names
    with pytest.raises(UserError, match="no such column"):
        read_records(folder, ["metod"])


def test_a_file_of_many_records_in_any_order(make_record: MakeRecord, tmp_path: Path) -> None:
    tables = [
        to_table(make_record(f"r{i}", seed=i, scores=[Score(metric=f"m{j}", value=10 * i + j) for j in range(i)]))
        for i in range(6)
    ]
    table = pa.concat_tables(tables)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    (tmp_path / "records").mkdir()
    _put(tmp_path, shuffled)
    rows = read_records(tmp_path).long().to_pylist()
    assert {(r["seed"], r["metric"], r["value"]) for r in rows} == {(0, "", None)} | {
        (i, f"m{j}", 10.0 * i + j) for i in range(6) for j in range(i)
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty", b""), ("junk", os.urandom(500)), ("magic", b"PAR1" + bytes(40) + b"PAR1")],
)
def test_junk_is_skipped_by_name(folder: Path, name: str, content: bytes) -> None:
    (folder / "records" / f"{name}.parquet").write_bytes(content)
    records = read_records(folder)
    assert _seeds(records) == [0, 1]
    (skipped,) = records.skipped
    assert skipped.path.stem == name
    assert "parquet" in skipped.reason


def test_every_truncation_and_many_flipped_bytes_are_survived(folder: Path, make_record: MakeRecord) -> None:
    whole = write_record(folder, make_record("victim", seed=9)).read_bytes()
    victim = folder / "records" / "victim-1.parquet"
    random = np.random.default_rng(3)
    for length in random.integers(0, len(whole) - 1, 60):
        victim.write_bytes(whole[:length])
        assert _seeds(read_records(folder)) == [0, 1]
    for _ in range(150):
        broken = np.frombuffer(whole, np.uint8).copy()
        broken[random.integers(0, len(whole), random.integers(1, 6))] = random.integers(0, 256)
        victim.write_bytes(broken.tobytes())
        records = read_records(folder)
        assert set(_seeds(records)) >= {0, 1}
        records.long().to_pylist()


def test_foreign_parquet_is_named_as_such(folder: Path) -> None:
    _put(folder, pa.table({"x": [1, 2]}))
    (skipped,) = read_records(folder).skipped
    assert "not a record" in skipped.reason


def test_a_missing_column_is_named(folder: Path, make_record: MakeRecord) -> None:
    _put(folder, to_table(make_record(seed=9)).drop_columns(["data_digest"]))
    records = read_records(folder)
    assert _seeds(records) == [0, 1]
    assert "'data_digest'" in records.skipped[0].reason


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("seed", ["zero", "one"]),
        ("seed", [0.5, 1.5]),
        ("value", ["high", "low"]),
        ("metric", [1, 2]),
        ("tuned", ["yes", "no"]),
        ("method", [["nested"], ["list"]]),
        ("started_at", ["today", "now"]),
        ("schema_version", ["one", "two"]),
    ],
)
def test_a_column_of_a_wrong_type_is_named(
    folder: Path, make_record: MakeRecord, column: str, values: list[Any]
) -> None:
    _put(folder, _replace(to_table(make_record(seed=9)), column, pa.array(values)))
    records = read_records(folder)
    assert _seeds(records) == [0, 1]
    assert column in records.skipped[0].reason


def test_other_widths_of_the_right_kind_are_accepted(folder: Path, make_record: MakeRecord) -> None:
    table = to_table(make_record(seed=9))
    for name, kind in (
        ("seed", pa.uint8()),
        ("value", pa.float32()),
        ("method", pa.large_string()),
        ("dataset", pa.dictionary(pa.int8(), pa.string())),
        ("finished_at", pa.timestamp("ms", "UTC")),
    ):
        table = _replace(table, name, table[name].cast(kind))
    _put(folder, table.append_column("comment", pa.array(["added", "by hand"])))
    records = read_records(folder)
    assert records.skipped == ()
    assert _seeds(records) == [0, 1, 9]
    assert records.runs.schema.field("seed").type == pa.int64()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": pa.array(["x" * 5000] * 2)}, "'method' holds a text of 5,000 bytes"),
        ({"config_json": pa.array(["x" * 2_000_000] * 2)}, "2,000,000 bytes"),
        ({"run_id": pa.array([None, None], pa.string())}, "'run_id' is null"),
        ({"record_id": pa.array(["a", None])}, "'record_id' is null"),
        ({"schema_meaning": pa.array([99, 99])}, "newer version"),
        (
            {"variant": pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"ok"]).buffers())},
            "not UTF-8",
        ),
    ],
)
@pytest.mark.parametrize("dictionary", [False, True])
def test_unusable_content_is_named(
    folder: Path,
    make_record: MakeRecord,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, pa.Array],
    reason: str,
    dictionary: bool,
) -> None:
    if dictionary:
        monkeypatch.setattr(blocks, "_PLAIN_BYTES", 0)
    table = to_table(make_record(seed=9))
    for name, array in change.items():
        table = _replace(table, name, array)
    _put(folder, table)
    records = read_records(folder)
    assert _seeds(records) == [0, 1]
    assert reason in records.skipped[0].reason


def test_a_small_file_cannot_claim_much_memory(folder: Path, make_record: MakeRecord) -> None:
    # 20 kB on the disk, 16 GB if every row were given its own copy of the text.
    rows = 16_000
    table = to_table(make_record(seed=9)).slice(0, 1).take([0] * rows)
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [f'{{"x": "{"x" * 1_000_000}"}}'])
    path = _put(folder, _replace(table, "spec_json", bomb), compression="zstd")
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    records = read_records(folder)
    assert pa.total_allocated_bytes() - before < 50_000_000
    assert _seeds(records) == [0, 1, 9]


def test_files_beyond_the_limits_are_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_ROWS", 1)
    assert {s.reason.split(":")[0] for s in read_records(folder).skipped} == {"too large"}
    monkeypatch.setattr(blocks, "MAX_FILE_BYTES", 100)
    assert {s.reason for s in read_records(folder).skipped} == {"larger than 100 bytes"}


def test_files_of_an_older_schema_are_read(
    folder: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written today is read by a later version, whose schema has two more columns."""
    version = schema.SCHEMA_VERSION + 1
    later = (
        Column("cluster", pa.string(), "added later", since=version, default="unknown"),
        Column("kilowatt_hours", pa.float64(), "added later", since=version),
    )
    today = to_table(make_record("tomorrow", seed=2))
    monkeypatch.setattr(schema, "COLUMNS", (*schema.COLUMNS, *later))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version)
    new = _replace(today, "schema_version", pa.array([version] * 2))
    new = new.append_column("cluster", pa.array(["here", "here"])).append_column("kilowatt_hours", pa.array([1.0] * 2))
    _put(folder, new, "new.parquet")
    _put(folder, _replace(today, "schema_version", pa.array([version] * 2)), "broken.parquet")
    records = read_records(folder)
    runs = {run["seed"]: run for run in records.runs.to_pylist()}
    assert {seed: (run["cluster"], run["kilowatt_hours"]) for seed, run in runs.items()} == {
        0: ("unknown", None),
        1: ("unknown", None),
        2: ("here", 1.0),
    }
    assert [(s.path.name, s.reason) for s in records.skipped] == [("broken.parquet", "it has no column 'cluster'")]


def test_a_newer_file_with_more_columns_is_read_by_older_code(folder: Path, make_record: MakeRecord) -> None:
    table = to_table(make_record(seed=9)).append_column("cluster", pa.array(["here", "here"]))
    _put(folder, _replace(table, "schema_version", pa.array([schema.SCHEMA_VERSION + 1] * 2)))
    assert _seeds(read_records(folder)) == [0, 1, 9]


def test_a_record_is_held_once(folder: Path, make_record: MakeRecord) -> None:
    record = make_record(seed=7)
    write_record(folder, record)
    _put(folder, pa.concat_tables([to_table(record), to_table(make_record("b", seed=8))]), "merged.parquet")
    records = read_records(folder)
    assert records.duplicates == 1
    assert _seeds(records) == [0, 1, 7, 8]
    assert len(records.scores) == 8
    assert records.scores["run"].to_pylist() == sorted(records.scores["run"].to_pylist())


def test_a_listing_that_is_out_of_date_is_made_again(
    folder: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and the reading, a merge replaces the listed files."""
    real = reading.record_files
    calls: list[int] = []

    def list_then_merge(paths: Any) -> list[Path]:
        files = real(paths)
        if not calls:
            merged = pa.concat_tables([pq.read_table(file) for file in files])
            _put(folder, merged, "merged.parquet")
            for file in files:
                file.unlink()
        calls.append(len(files))
        return files

    monkeypatch.setattr(reading, "record_files", list_then_merge)
    records = read_records(folder)
    assert calls == [2, 1, 1]  # a listing before and after each reading
    assert _seeds(records) == [0, 1]
    assert records.skipped == ()


def test_records_are_frozen(make_record: MakeRecord) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_record().seed = 3  # type: ignore[misc]
