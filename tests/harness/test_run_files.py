"""The small files in a run's folder: the same after a way through JSON, and readable where old versions wrote them."""

import json
import time
from pathlib import Path

import pytest

from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.rows import DRIVER, collect
from subnetbench.harness.runs.state import Failure, Finished, Heartbeat

OLD_HEARTBEAT = (
    '{"ended": "interrupted", "phase": "training", "pid": 1234, "host": "n1", "time": 1764000000.5, "seconds": 12.25, '
    '"stage": "train", "epoch": 2, "epochs": 5, "step": 40, "total_steps": 100, "metrics": {"train/loss": NaN}, '
    '"train_seconds": 10.5}'
)
OLD_DRIVER = (
    '{"stage": "search", "pid": 7, "host": "n2", "epoch": 3, "epochs": 6, "time": 1764000000.0, "seconds": 4.0}'
)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path, "dense-emoji-s0-0123456789")
    folder.create("{}")
    return folder


def test_heartbeats_of_earlier_versions_are_read(folder):
    folder.progress_file.write_text(OLD_HEARTBEAT)
    heartbeat = folder.heartbeat()
    assert (heartbeat.ended, heartbeat.phase, heartbeat.pid, heartbeat.host) == ("interrupted", "training", 1234, "n1")
    assert heartbeat.position == ("train", 40, "training")
    assert (heartbeat.time, heartbeat.seconds, heartbeat.train_seconds) == (1764000000.5, 12.25, 10.5)
    assert (heartbeat.epoch, heartbeat.epochs, heartbeat.total_steps) == (2, 5, 100)
    assert list(heartbeat.metrics) == ["train/loss"]
    assert folder.state() == "interrupted"
    folder.progress_file.write_text(OLD_DRIVER)
    assert folder.heartbeat() == Heartbeat(1764000000.0, 4.0, stage="search", epoch=3, epochs=6, host="n2", pid=7)


def test_failures_and_finished_files_of_earlier_versions_are_read(folder):
    folder.failure_file.write_text('{"reason": "nan", "message": "loss is nan\\nat step 3", "time": 1764000000.0}')
    assert folder.failure() == Failure("nan", "loss is nan\nat step 3", 1764000000.0)
    assert folder.failure().first_line == "loss is nan"
    folder.failure_file.write_text('{"reason": "killed"}')
    assert folder.failure() == Failure("killed", "", 0.0)
    folder.finished_file.write_text('{"record": "dense-emoji-s0-0123456789-0.parquet", "time": 1764000000.0}')
    assert folder.finished() == Finished("dense-emoji-s0-0123456789-0.parquet", 1764000000.0)
    assert folder.record_file() == folder.results / "records" / "dense-emoji-s0-0123456789-0.parquet"
    folder.finished_file.write_text('{"time": 1764000000.0, "complete": false}')
    assert folder.finished() == Finished("", 1764000000.0, complete=False)
    assert folder.record_file() is None


@pytest.mark.parametrize("text", ["", "[]", '{"time": 1', '"x"'])
def test_what_is_no_object_is_no_file(folder, text):
    for path in (folder.progress_file, folder.failure_file, folder.finished_file):
        path.write_text(text)
    assert (folder.heartbeat(), folder.failure(), folder.finished()) == (None, None, None)


def test_values_of_the_wrong_type_and_unknown_keys_are_left_out(folder):
    folder.progress_file.write_text('{"time": "now", "step": null, "epoch": 3.5, "ended": "asleep", "new": 1}')
    assert folder.heartbeat() == Heartbeat()


def test_files_are_the_same_after_a_way_through_json(folder):
    beat = Heartbeat(stage="train", epoch=0, epochs=3, metrics={"loss": 0.5}).now(ended="finished", step=2)
    folder.write_heartbeat(beat)
    failure, finished = Failure("error", "why"), Finished("a.parquet")
    folder.write_failure(failure)
    folder.write_finished(finished)
    assert (folder.heartbeat(), folder.failure(), folder.finished()) == (beat, failure, finished)
    assert "epoch" not in Heartbeat().to_json()


def test_rows_say_where_runs_stand(folder, tmp_path):
    RunFolder(tmp_path, DRIVER).create("{}")
    running, failed = RunFolder(tmp_path, "a"), RunFolder(tmp_path, "b")
    for each in (running, failed):
        each.create("{}")
    running.write_heartbeat(Heartbeat(stage="train", epoch=2, epochs=5, step=40, seconds=16.0).now())
    failed.write_failure(Failure("nan", "loss is nan\nat step 3"))
    folder.write_heartbeat(Heartbeat(time=time.time() - 1000))
    rows = {row.run: row for row in collect([Path(tmp_path)])}
    assert list(rows) == [DRIVER, "a", "b", folder.run_id, DRIVER][:4]
    shown = rows["a"].to_json()
    assert [shown[name] for name in ("state", "epoch", "rate", "seconds")] == ["running", "2/5", "2.5/s", "16"]
    assert (rows["b"].state, rows["b"].detail) == ("failed", "nan: loss is nan")
    assert rows[folder.run_id].state == "stale"
    json.dumps([row.to_json() for row in rows.values()])
