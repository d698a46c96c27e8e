"""`clean` takes nothing away from anybody: not from runs under way, not from behind links."""

import os

import pytest

from subnetbench.harness.api.cleaning import clean
from subnetbench.harness.core.files import file_lock
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.state import Heartbeat


def old(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "results", "dense-digits-s0-0123456789")
    folder.create("{}")
    return folder


def names(removed):
    return sorted(each.path.name for each in removed)


def test_a_record_that_is_being_written_stays(run):
    fresh = run.results / "records" / f"{run.run_id}-1.parquet.tmp-{'0' * 32}"
    old(fresh).touch()
    left = old(run.results / "records" / f"{run.run_id}-2.parquet.tmp-{'1' * 32}")
    assert names(clean(run.results)) == [left.name]
    assert fresh.exists()


def test_what_a_locked_run_has_stays_without_a_sign_of_life(run):
    old(run.lock_file)
    run.write_heartbeat(Heartbeat(time=1e9))
    mine = [old(run.model_file), old(run.last_checkpoint), old(run.path / "model.safetensors.tmp-2")]
    cache = old(run.results / "cache" / "features.pt")
    with file_lock(run.lock_file, 0.0):
        assert clean(run.results, checkpoints=True, models=True) == []
    assert all(path.exists() for path in (*mine, cache))
    assert names(clean(run.results, checkpoints=True, models=True)) == sorted(["cache", *(p.name for p in mine)])


@pytest.mark.parametrize("what", ["run", "runs", "cache", "records", "model"])
def test_nothing_behind_a_link_is_removed(tmp_path, what):
    outside, results = tmp_path / "outside", tmp_path / "results"
    folder = RunFolder(outside, "dense-digits-s0-0123456789")
    folder.create("{}")
    kept = [old(folder.model_file), old(folder.last_checkpoint), old(outside / "cache" / "a.pt")]
    kept.append(old(outside / "records" / f"a.parquet.tmp-{'0' * 32}"))
    inside = RunFolder(results, folder.run_id)
    links = {
        "run": (inside.path, folder.path),
        "runs": (results / "runs", outside / "runs"),
        "cache": (results / "cache", outside / "cache"),
        "records": (results / "records", outside / "records"),
        "model": (inside.model_file, folder.model_file),
    }
    link, target = links[what]
    if what == "model":
        inside.create("{}")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    assert clean(results, checkpoints=True, models=True) == []
    assert all(path.exists() for path in kept)
    assert link.is_symlink()
