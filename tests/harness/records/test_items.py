"""Scores by item in files beside records: what is written is read, and what is not ours is refused with the reason."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.items import Items, ItemSet, ItemValues
from subnetbench.harness.records.items_file import ItemsFault, items_of, items_path, read_items, to_table, write_items

MakeRecord = Callable[..., RunRecord]


def item_set(n: int = 6, clusters: int = 3, kind: str = "image") -> ItemSet:
    label = np.arange(n) % 2
    return ItemSet(kind, np.arange(n), label, ("cat", "dog"), np.arange(n) % clusters)


def score(values: Any, of: ItemSet | None = None, **names: str) -> Score:
    items = ItemValues(of or item_set(len(values)), np.asarray(values, np.float32))
    return Score(**{"metric": "top1", "split": "test", "variant": "full", **names}, value=items.mean, items=items)


def put(folder: Path, record: RunRecord) -> RunRecord:
    """Write a record with its scores by item, as a run does."""
    written = write_items(folder, record.record_id, items_of(record.scores))
    record = replace(record, items_digest=written.digest)
    write_record(folder, record)
    return record


def refused(content: bytes, folder: Path) -> str:
    path = folder / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(ItemsFault) as caught:
        read_items(path)
    return str(caught.value)


def as_bytes(table: pa.Table, **options: Any) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, **options)
    return content.getvalue()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_written_is_read(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("items")
    scores = []
    for at in range(data.draw(st.integers(1, 4))):
        n = data.draw(st.integers(1, 20))
        value = st.one_of(st.floats(0, 1, width=32), st.just(float("nan")))
        values = data.draw(st.lists(value, min_size=n, max_size=n))
        scores.append(score(values, item_set(n, data.draw(st.integers(1, 5))), variant=f"v{at}"))
    items = items_of(scores)
    written = write_items(folder, "r1", items)
    assert written.path == folder / "items" / "r1.parquet"
    assert written.size == written.path.stat().st_size
    found = read_items(written.path, written.digest)
    assert found.values.keys() == items.values.keys()
    for key, values in found.values.items():
        assert np.array_equal(values.value, items.values[key].value, equal_nan=True)
        assert values.of.same_as(items.values[key].of)
    assert read_items(written.path, metrics=["map"]).values == {}


def test_equal_sets_of_items_are_held_once():
    items = items_of([score([0, 1, 1], item_set(3)), score([1, 1, 1], item_set(3), variant="other")])
    assert len(items.sets) == 1
    assert len(to_table(items)) == 3


def test_a_value_for_each_item():
    with pytest.raises(ValueError, match="2,"):
        ItemValues(item_set(3), np.zeros(2))
    with pytest.raises(ValueError, match="cluster"):
        ItemSet("image", np.arange(3), np.zeros(3), ("a",), np.zeros(2))
    with pytest.raises(ValueError, match="1 classes"):
        ItemSet("image", np.arange(3), np.array([0, 1, 0]), ("a",), np.zeros(3))


def test_where_they_lie():
    assert items_path("r/records/a-1.parquet", "ab12") == Path("r/items/ab12.parquet")
    assert items_path("publication/records.parquet", "ab12") == Path("publication/items/ab12.parquet")
    for hostile in ("../../etc/passwd", "a/b", "", ".hidden", "x" * 65, "a\x00"):
        assert items_path("r/records/a-1.parquet", hostile) is None


def test_files_of_others_are_refused(tmp_path):
    table = to_table(items_of([score([0, 1, 1])]))
    assert "parquet" in refused(b"PAR1 nonsense", tmp_path)
    assert "no column 'kind'" in refused(as_bytes(table.drop_columns(["kind"])), tmp_path)
    lacking = table.set_column(0, "items_version", pa.array([2] * len(table), pa.int32()))
    assert "newer version" in refused(as_bytes(lacking), tmp_path)
    at = table.column_names.index("value")
    wide = table.set_column(at, "value", pa.array([None, [0.0, 1.0, 1.0]], pa.list_(pa.float64())))
    assert "has type" in refused(as_bytes(wide), tmp_path)
    short = table.set_column(at, "value", pa.array([None, [0.0]], pa.list_(pa.float32())))
    assert "1,) values for 3 items" in refused(as_bytes(short), tmp_path)
    holes = table.set_column(at, "value", pa.array([None, [0.0, None, 1.0]], pa.list_(pa.float32())))
    assert "nulls" in refused(as_bytes(holes), tmp_path)
    assert "no set of items" in refused(as_bytes(table.slice(1)), tmp_path)
    twice = pa.concat_tables([table, table.slice(1)])
    assert "there twice" in refused(as_bytes(twice), tmp_path)
    labels = table.set_column(
        table.column_names.index("label"), "label", pa.array([[0, 9, 0], None], pa.list_(pa.int32()))
    )
    assert "do not fit 2 classes" in refused(as_bytes(labels), tmp_path)
    with pytest.raises(ItemsFault, match="cannot be read"):
        read_items(tmp_path / "absent.parquet")


def test_small_files_that_grow_when_read_are_refused(tmp_path, monkeypatch):
    """A run-length code of few bytes may stand for any number of values."""
    from subnetbench.harness.records import items_file

    monkeypatch.setattr(items_file, "MAX_VALUES", 10_000)
    content = as_bytes(to_table(items_of([score(np.zeros(20_000))])), compression="zstd")
    assert len(content) < 100_000
    assert "too large" in refused(content, tmp_path)
    monkeypatch.setattr(items_file, "MAX_FILE_BYTES", 100)
    assert "larger than 100 bytes" in refused(content, tmp_path)


def test_validate_compares_digest_and_means(tmp_path, make_record: MakeRecord):
    record = put(tmp_path, make_record(scores=[score([0, 1, 1, 1])]))
    checked = api.validate(tmp_path)
    assert (checked.faults, checked.items, checked.items_absent) == ((), 1, 0)

    path = tmp_path / "items" / f"{record.record_id}.parquet"
    sound = path.read_bytes()
    path.write_bytes(sound + b"\0")
    (fault,) = api.validate(tmp_path).faults
    assert fault.path == path
    assert "another digest" in str(fault)

    other = write_items(tmp_path, record.record_id, items_of([score([0, 0, 0, 1])]))
    (tmp_path / "records" / "run-1.parquet").unlink()
    write_record(tmp_path, replace(record, items_digest=other.digest))
    (fault,) = api.validate(tmp_path).faults
    assert (fault.field, fault.value, fault.allowed) == ("top1 of full on test", 0.25, "0.75, the score in the record")

    surplus = write_items(tmp_path, record.record_id, items_of([score([0, 1, 1, 1]), score([1], variant="none")]))
    (tmp_path / "records" / "run-1.parquet").unlink()
    write_record(tmp_path, replace(record, items_digest=surplus.digest))
    assert [fault.field for fault in api.validate(tmp_path).faults] == ["top1 of none on test"]


def test_validate_counts_files_that_are_not_there(tmp_path, make_record: MakeRecord):
    record = put(tmp_path, make_record(scores=[score([0, 1, 1, 1])]))
    (tmp_path / "items" / f"{record.record_id}.parquet").unlink()
    result = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 0
    assert "1 with scores by item, 1 of these files are not there" in result.output


def test_an_id_that_is_a_path_is_a_fault(tmp_path, make_record: MakeRecord):
    digest = hashlib.sha256(b"").hexdigest()
    write_record(tmp_path, make_record(record_id="../../x", items_digest=digest))
    (fault,) = api.validate(tmp_path).faults
    assert fault.field == "record_id"


def test_means_leave_out_what_does_not_count():
    assert ItemValues(item_set(3), np.array([1, np.nan, 0])).mean == 0.5
    assert np.isnan(ItemValues(item_set(1), np.array([np.nan])).mean)
    assert len(Items({})) == 0
