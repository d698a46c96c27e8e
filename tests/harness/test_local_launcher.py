"""The local launcher: one bad run of any kind is recorded as failed, and the others continue."""

import signal
import time

import pytest

from subnetbench.harness.core import registry
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.data.registry import DATASETS
from subnetbench.harness.execution.devices import Devices
from subnetbench.harness.execution.local import LocalLauncher, RunningRun
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.registry import METHODS
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.state import Failure, Heartbeat

PLUGIN = '''
"""Methods that go wrong."""
import os, signal, time
from subnetbench.harness.method import register_method
from subnetbench.methods.dense import Dense

def bad(name, deed):
    class Bad(Dense):
        """Goes wrong."""
        def start_epoch(self, modules, stage, epoch, context):
            deed()
    Bad.__qualname__ = name
    return register_method(name)(Bad)

def crash(): raise RuntimeError("it broke\\nbadly")
def exhaust(): raise MemoryError("no more memory")
def hang(): time.sleep(600)
def die(): os.kill(os.getpid(), signal.SIGKILL)
def complain(): raise RuntimeError(os.environ["COMPLAINT"])

bad("crashing", crash); bad("exhausting", exhaust); bad("hanging", hang); bad("dying", die)
bad("complaining", complain)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    METHODS.get("dense")
    DATASETS.get("emoji")
    monkeypatch.setattr(registry, "_plugins", {})
    for each in (METHODS, DATASETS):
        monkeypatch.setattr(each, "_classes", dict(each._classes))
    path = tmp_path / "wrong.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    return path


def spec_of(method, **config):
    tiny = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2, "batch_size": 32}
    return resolve(method, "emoji", config={**tiny, **config}, compute={"device": "cpu"})


@pytest.mark.slow
def test_bad_runs_are_recorded_with_their_reason_and_the_good_one_finishes(plugin, tmp_path):
    specs = [spec_of(name) for name in ("crashing", "exhausting", "hanging", "dying", "dense")]
    specs.append(spec_of("dense", lr=1e30, epochs=3))
    events = []
    launcher = LocalLauncher(
        tmp_path,
        RunSettings(trackers=(), plugins=(plugin,), sweep="bad"),
        Devices(cpu_slots=3),
        on_event=lambda run_id, event, detail: events.append((run_id, event)),
        hang_seconds=15.0,
    )
    statuses = launcher.run(specs)
    reasons = {}
    for spec in specs[:4] + specs[5:]:
        assert statuses[spec.run_id] == "failed"
        reasons[spec.method] = RunFolder(tmp_path, spec.run_id).failure()
    assert statuses[specs[4].run_id] == "finished"
    assert reasons["crashing"].message.startswith("RuntimeError: it broke")
    assert reasons["exhausting"].reason == "out-of-memory"
    assert reasons["hanging"].reason == "hang"
    assert reasons["dying"].reason == "killed"
    assert reasons["dense"].reason == "nan"
    assert "badly" in RunFolder(tmp_path, specs[0].run_id).log_file.read_text()

    rows = read_records([tmp_path]).runs.to_pylist()
    assert sorted(row["status"] for row in rows) == ["failed"] * 5 + ["finished"]
    assert {row["error_kind"] for row in rows} == {"", "error", "out-of-memory", "hang", "killed", "nan"}
    assert [event for run_id, event in events if run_id == specs[4].run_id] == ["started", "finished"]


@pytest.mark.slow
def test_killed_runs_resume_a_bounded_number_of_times_and_are_left_to_do_after_that(plugin, tmp_path):
    spec = spec_of("dying")
    events = []
    launcher = LocalLauncher(
        tmp_path,
        RunSettings(trackers=(), plugins=(plugin,)),
        Devices(cpu_slots=1),
        on_event=lambda run_id, event, detail: events.append((event, detail)),
        resumptions=2,
    )
    assert launcher.run([spec]) == {spec.run_id: "failed"}
    assert [event for event, _ in events] == ["started", "resuming"] * 2 + ["started", "failed"]
    assert "resumption 2 of 2" in events[3][1]
    assert "was killed 3 times" in events[-1][1]
    assert "the same command resumes it" in RunFolder(tmp_path, spec.run_id).failure().message
    assert len(read_records([tmp_path]).runs) == 1
    assert plan_runs([spec], tmp_path).todo == [spec]


def test_a_failed_run_waits_until_it_is_retried(tmp_path):
    spec = spec_of("dense")
    folder = RunFolder(tmp_path, spec.run_id)
    folder.create(spec.model_dump_json())
    folder.write_failure(Failure("nan", "the loss is not finite"))
    assert plan_runs([spec], tmp_path).failed == [spec.run_id]
    assert plan_runs([spec], tmp_path, retry_failed=True).todo == [spec]


def test_runs_see_the_environment_of_the_moment_when_they_start(plugin, tmp_path, monkeypatch):
    for seed, complaint in enumerate(("too early", "too late")):
        monkeypatch.setenv("COMPLAINT", complaint)
        spec = spec_of("complaining").model_copy(update={"seed": seed})
        LocalLauncher(tmp_path, RunSettings(trackers=(), plugins=(plugin,)), Devices(cpu_slots=1)).run([spec])
        assert complaint in RunFolder(tmp_path, spec.run_id).failure().message


def test_a_run_whose_input_failed_is_blocked(plugin, tmp_path):
    teacher, student = spec_of("crashing"), spec_of("dense")
    student = student.model_copy(update={"inputs": {"teacher": teacher}})
    statuses = LocalLauncher(tmp_path, RunSettings(trackers=(), plugins=(plugin,)), Devices(cpu_slots=2)).run(
        [teacher, student]
    )
    assert statuses == {teacher.run_id: "failed", student.run_id: "blocked"}
    assert not RunFolder(tmp_path, student.run_id).path.exists()


def test_devices_are_never_shared_unless_asked():
    one, two = spec_of("dense"), spec_of("dense").model_copy(update={"seed": 1})
    gpu_one, gpu_two = (
        s.model_copy(update={"compute": s.compute.model_copy(update={"device": "cuda"})}) for s in (one, two)
    )
    devices = Devices(cpu_slots=1, gpus=("0",))
    assert devices.take(gpu_one) == ["0"]
    assert devices.take(gpu_two) is None
    assert devices.take(one) == []
    assert devices.take(two) is None
    devices.give_back(gpu_one, ["0"])
    assert devices.take(gpu_two) == ["0"]
    shared = Devices(cpu_slots=1, gpus=("0",), runs_per_gpu=2)
    assert [shared.take(gpu_one), shared.take(gpu_two)] == [["0"], ["0"]]


def test_a_run_that_is_wider_than_the_machine_still_starts_alone():
    wide = spec_of("dense").model_copy(update={"compute": spec_of("dense").compute.model_copy(update={"threads": 8})})
    devices = Devices(cpu_slots=2)
    assert devices.take(wide) == []
    assert devices.take(spec_of("dense")) is None


def test_a_run_that_works_elsewhere_is_left_alone(tmp_path, monkeypatch):
    import fcntl

    from subnetbench.harness.execution import run as execution

    monkeypatch.setattr(execution, "LOCK_PATIENCE_SECONDS", 0.3)
    spec = spec_of("dense")
    folder = RunFolder(tmp_path, spec.run_id)
    folder.create(spec.model_dump_json())
    with open(folder.lock_file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(execution.RunElsewhere, match="being worked on by another process"):
            execution.execute(spec, tmp_path, RunSettings(trackers=()))
    assert not folder.failure_file.exists()
    assert execution.execute(spec, tmp_path, RunSettings(trackers=())) == "finished"


def test_a_foreign_checkpoint_is_refused_and_kept(tmp_path):
    from subnetbench.harness.execution.run import execute
    from subnetbench.harness.runs.state_file import save_state

    spec = spec_of("dense")
    folder = RunFolder(tmp_path, spec.run_id)
    folder.create(spec.model_dump_json())
    save_state(folder.last_checkpoint, {"run_id": "dense-emoji-s9-0123456789"})
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "failed"
    assert "belongs to run dense-emoji-s9-0123456789" in folder.failure().message
    assert folder.last_checkpoint.exists()


def test_mixed_precision_trains(tmp_path):
    from subnetbench.harness.execution.run import execute

    compute = {"device": "cpu", "precision": "bf16"}
    spec = resolve("edge_popup", "emoji", config={**spec_of("edge_popup").config}, compute=compute)
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "finished"


def test_a_world_of_another_size_is_an_error(tmp_path, monkeypatch):
    from subnetbench.harness.execution.run import execute

    monkeypatch.setenv("WORLD_SIZE", "2")
    spec = spec_of("dense")
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "failed"
    assert RunFolder(tmp_path, spec.run_id).failure().reason == "world-size"


def test_signals_are_given_back_after_a_run(tmp_path):
    from subnetbench.harness.execution.run import execute

    before = signal.getsignal(signal.SIGTERM)
    assert execute(spec_of("dense"), tmp_path, RunSettings(trackers=())) == "finished"
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_training_without_a_sign_of_life_counts_as_hanging(tmp_path, monkeypatch):
    spec = spec_of("dense")
    folder = RunFolder(tmp_path, spec.run_id)
    folder.create(spec.model_dump_json())
    launcher = LocalLauncher(tmp_path, RunSettings(trackers=()), Devices(cpu_slots=1))
    assert launcher.hang_seconds == 1800
    now = time.monotonic() + 4000
    run = RunningRun(spec, folder, [], [], None, time.monotonic(), time.time())
    for phase, hangs in (("training", True), ("evaluating", False)):
        folder.write_heartbeat(Heartbeat(time=time.time() - 4000, phase=phase))
        assert launcher._hangs(run, now) == hangs
    folder.write_heartbeat(Heartbeat(time=time.time() - 4000, phase="training"))
    launcher._awake_since = now - 5  # the launcher was stopped, and its runs with it
    assert not launcher._hangs(run, now)
    monkeypatch.setenv("SUBNETBENCH_HANG_SECONDS", "0")
    assert not LocalLauncher(tmp_path, RunSettings(trackers=()), Devices(cpu_slots=1))._hangs(run, now)
    monkeypatch.setenv("SUBNETBENCH_HANG_SECONDS", "soon")
    with pytest.raises(UserError, match="SUBNETBENCH_HANG_SECONDS"):
        LocalLauncher(tmp_path, RunSettings(trackers=()), Devices(cpu_slots=1))
