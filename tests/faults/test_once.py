"""Every run is recorded once, whoever else carries it out and whenever its process dies."""

import time

import pytest

from subnetbench.harness.core.files import file_lock
from subnetbench.harness.execution import run as execution
from subnetbench.harness.execution.devices import Devices
from subnetbench.harness.execution.local import LocalLauncher
from subnetbench.harness.execution.run import RunElsewhere, execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder

TINY = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 1}
QUIET = RunSettings(trackers=())


@pytest.fixture
def spec():
    return resolve("dense", "digits", config=TINY, compute={"device": "cpu"})


def finished(results):
    return read_records(results, ["record_id", "status"]).runs["status"].to_pylist().count("finished")


def test_four_launchers_at_once_make_one_record(tmp_path, spec):
    launchers = [LocalLauncher(tmp_path, QUIET, Devices(cpu_slots=1)) for _ in range(4)]
    for launcher in launchers:
        launcher.submit(spec)
    deadline = time.monotonic() + 120
    while not all(launcher.statuses for launcher in launchers) and time.monotonic() < deadline:
        for launcher in launchers:
            launcher.poll()
    assert [launcher.statuses[spec.run_id] for launcher in launchers] == ["finished"] * 4
    assert finished(tmp_path) == 1


def test_a_run_that_died_after_its_record_adopts_it(tmp_path, spec, monkeypatch):
    class Killed(BaseException):
        pass

    def die(folder, record):
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(execution, "finish", die)
        with pytest.raises(Killed):
            execute(spec, tmp_path, QUIET)
    folder = RunFolder(tmp_path, spec.run_id)
    assert not folder.finished_file.exists()
    assert execute(spec, tmp_path, QUIET) == "finished"
    assert finished(tmp_path) == 1
    assert folder.record_file().exists()
    assert not folder.recording_file.exists()


def test_one_that_died_before_its_record_is_recorded(tmp_path, spec, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr("subnetbench.harness.execution.recording.write_record", die)
        with pytest.raises(Killed):
            execute(spec, tmp_path, QUIET)
    assert execute(spec, tmp_path, QUIET) == "finished"
    assert finished(tmp_path) == 1


def test_records_of_an_earlier_training_are_not_adopted(tmp_path, spec):
    execute(spec, tmp_path, QUIET)
    folder = RunFolder(tmp_path, spec.run_id)
    first = folder.record_file()
    folder.forget()
    assert execute(spec, tmp_path, QUIET) == "finished"
    assert folder.record_file() != first
    assert finished(tmp_path) == 2


def test_rank_0_of_several_does_not_leave_the_others_waiting(tmp_path):
    two = resolve("dense", "digits", config=TINY, compute={"device": "cpu", "processes": 2})
    folder = RunFolder(tmp_path, two.run_id)
    folder.create(two.model_dump_json())
    with file_lock(folder.lock_file, 0.0), pytest.raises(RunElsewhere, match="being worked on"):
        _execute_at_once(two, tmp_path)
    (tmp_path / "records").mkdir()
    assert execution._finished_meanwhile(two, folder) is False
    folder.finished_file.write_text("{}")
    with pytest.raises(RunElsewhere, match="finished by another process"):
        execution._finished_meanwhile(two, folder)


def _execute_at_once(spec, results):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "LOCK_PATIENCE_SECONDS", 0.0)
        return execute(spec, results, QUIET)
