from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records import merge as merging
from subnetbench.harness.records.merge import merge
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.schema import arrow_schema

MakeRecord = Callable[..., RunRecord]


def _rows(path: Path) -> list[dict[str, object]]:
    rows = read_records(path).long().to_pylist()
    return sorted(rows, key=lambda row: (row["record_id"], row["metric"], row["split"], row["variant"]))


def _write_some(make_record: MakeRecord, folder: Path, count: int, start: int = 0) -> None:
    for i in range(start, start + count):
        scores = [Score(metric=f"m{j}", value=i + j / 10, split="test") for j in range(i % 4)]
        status = "finished" if scores else "failed"
        write_record(
            folder,
            make_record(f"r{i}", seed=i, status=status, scores=scores, spec={"text": "x" * 3000, "i": i}),
        )


def test_a_merge_keeps_every_value(make_record: MakeRecord, tmp_path: Path) -> None:
    _write_some(make_record, tmp_path, 20)
    before = _rows(tmp_path)
    (merged,) = merge(tmp_path)
    assert _rows(tmp_path) == before
    assert [path.name for path in (tmp_path / "records").iterdir()] == [merged.path.name]
    assert (merged.records, merged.rows, len(merged.removed)) == (20, len(before), 20)
    assert pq.read_schema(merged.path).equals(arrow_schema())
    assert read_records(tmp_path).duplicates == 0


def test_merging_again_and_again(make_record: MakeRecord, tmp_path: Path) -> None:
    for start in (0, 5, 10):
        _write_some(make_record, tmp_path, 5, start)
        merge(tmp_path)
    assert merge(tmp_path) == []
    assert len(list((tmp_path / "records").iterdir())) == 1
    assert sorted(read_records(tmp_path).runs["seed"].to_pylist()) == list(range(15))


def test_into_another_file_nothing_is_removed(make_record: MakeRecord, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write_some(make_record, tmp_path / name, 3)
    (merged,) = merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "all.parquet")
    assert merged.removed == ()
    assert _rows(tmp_path / "all.parquet") == sorted(
        _rows(tmp_path / "a") + _rows(tmp_path / "b"), key=lambda row: (row["record_id"], row["metric"])
    )
    assert len(read_records(tmp_path).runs) == 6
    assert read_records(tmp_path).duplicates == 6


def test_each_folder_is_merged_by_itself(make_record: MakeRecord, tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 2), ("c", 1)):
        _write_some(make_record, tmp_path / name, count)
    assert [(m.path.parent.parent.name, m.records) for m in merge(tmp_path)] == [("a", 3), ("b", 2)]


def test_what_cannot_be_read_stays(make_record: MakeRecord, tmp_path: Path) -> None:
    _write_some(make_record, tmp_path, 3)
    junk = tmp_path / "records" / "junk.parquet"
    junk.write_bytes(b"junk")
    (merged,) = merge(tmp_path)
    assert junk.exists()
    assert [item.path for item in merged.skipped] == [junk]


def test_a_merge_that_was_killed_counts_nothing_twice(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_some(make_record, tmp_path, 6)
    before = _rows(tmp_path)

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.name.startswith("r3"):
            raise KeyboardInterrupt
        real_unlink(self, missing_ok)

    real_unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path)
    monkeypatch.undo()
    assert read_records(tmp_path).duplicates > 0
    assert _rows(tmp_path) == before
    merge(tmp_path)
    assert _rows(tmp_path) == before
    assert len(list((tmp_path / "records").iterdir())) == 1


def test_a_merge_that_cannot_write_removes_nothing(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_some(make_record, tmp_path, 4)
    before = _rows(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left"):
        merging.merge(tmp_path)
    assert _rows(tmp_path) == before
    assert len(list((tmp_path / "records").iterdir())) == 4
