"""Digests of files: each is read once, and again when it may have changed."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from subnetbench.harness.core.errors import DataError
from subnetbench.harness.data import manifest
from subnetbench.harness.data.manifest import read_files


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "data" / name for name in ("train/a/1", "train/b/1", "test/a/1")]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_text(f"content {i}")
    return paths


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read whole, in order."""
    seen = []
    whole = manifest._digest
    monkeypatch.setattr(manifest, "_digest", lambda path: seen.append(path.name) or whole(path))
    return seen


def test_files_are_read_once(files, tmp_path, read):
    first = read_files(files, [tmp_path])
    assert [name for name, _ in first] == ["train/a/1", "train/b/1", "test/a/1"]
    assert read_files(files, [tmp_path]) == first
    assert len(read) == 3


def test_a_change_that_keeps_length_and_time_is_seen(files, tmp_path, read):
    """Whoever puts the time back cannot put back when the file was changed."""
    before = read_files(files, [tmp_path])
    state = files[1].stat()
    files[1].write_text("CONTENT 1")
    os.utime(files[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    after = read_files(files, [tmp_path])
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert len(read) == 4


def test_moved_data_have_the_same_names_and_digests(files, tmp_path):
    before = read_files(files, [tmp_path])
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "data") for path in files]
    assert read_files(moved, [tmp_path]) == before


@pytest.mark.parametrize("fault", ["damaged", "foreign"])
def test_a_table_that_cannot_be_read_is_made_anew(files, tmp_path, fault):
    before = read_files(files, [tmp_path])
    (table,) = tmp_path.glob(".subnetbench-manifest-*.parquet")
    table.write_bytes(table.read_bytes()[:-20] if fault == "damaged" else b"something else")
    assert read_files(files, [tmp_path]) == before


def test_the_first_folder_that_can_be_written_is_taken(files, tmp_path, read, caplog):
    nowhere, somewhere = tmp_path / "file" / "below", tmp_path / "results"
    (tmp_path / "file").write_text("no folder")
    before = read_files(files, [nowhere, somewhere])
    assert list(somewhere.glob(".subnetbench-manifest-*.parquet"))
    assert read_files(files, [nowhere, somewhere]) == before
    assert len(read) == 3
    read_files(files, [nowhere])
    assert "can be kept nowhere" in caplog.text


def test_many_at_once_agree(files, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_files(files, [tmp_path]), range(8)))
    assert all(each == found[0] for each in found)


def test_a_file_that_is_gone_is_named(files, tmp_path):
    files[0].unlink()
    with pytest.raises(DataError, match="train/a/1 cannot be read"):
        read_files(files, [tmp_path])
