"""The local launcher: one bad run of any kind is recorded as failed, and the others go on."""

import signal

import pytest

from subnetbench.harness import registry
from subnetbench.harness.launchers.local import Devices, LocalLauncher
from subnetbench.harness.records.read import read_records
from subnetbench.harness.registry import load_plugin
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import resolve

PLUGIN = '''
"""Methods that go wrong."""
import os, signal, time
from subnetbench.harness.registry import register_method
from subnetbench.methods.dense import Dense

def bad(name, deed):
    class Bad(Dense):
        """Goes wrong."""
        def on_epoch_start(self, modules, stage, epoch, context):
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
    registry.get_method("dense")
    registry.get_dataset("emoji")
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setattr(registry, "_classes", {kind: dict(known) for kind, known in registry._classes.items()})
    path = tmp_path / "wrong.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    return path


def spec_of(method, **config):
    tiny = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2, "batch_size": 32}
    return resolve(method, "emoji", config={**tiny, **config}, compute={"device": "cpu"})


def test_bad_runs_are_recorded_with_their_reason_and_the_good_one_finishes(plugin, tmp_path):
    specs = [spec_of(name) for name in ("crashing", "exhausting", "hanging", "dying", "dense")]
    specs.append(spec_of("dense", lr=1e30, epochs=3))
    events = []
    launcher = LocalLauncher(
        tmp_path,
        {"trackers": (), "plugins": (plugin,), "sweep": "bad"},
        Devices(cpu_slots=3),
        on_event=lambda run_id, event, detail: events.append((run_id, event)),
        hang_seconds=15.0,
    )
    endings = launcher.run(specs)
    reasons = {}
    for spec in specs[:4] + specs[5:]:
        assert endings[spec.run_id] == "failed"
        reasons[spec.method] = RunFolder(tmp_path, spec.run_id).failure()
    assert endings[specs[4].run_id] == "finished"
    assert reasons["crashing"]["message"].startswith("RuntimeError: it broke")
    assert reasons["exhausting"]["reason"] == "out-of-memory"
    assert reasons["hanging"]["reason"] == "hang"
    assert reasons["dying"]["reason"] == "killed"
    assert reasons["dense"]["reason"] == "nan"
    assert "badly" in RunFolder(tmp_path, specs[0].run_id).log_file.read_text()

    rows = read_records([tmp_path]).runs.to_pylist()
    assert sorted(row["status"] for row in rows) == ["failed"] * 5 + ["finished"]
    assert {row["error_kind"] for row in rows} == {"", "error", "out-of-memory", "hang", "killed", "nan"}
    assert [event for run_id, event in events if run_id == specs[4].run_id] == ["started", "finished"]


def test_runs_see_the_environment_of_the_moment_when_they_start(plugin, tmp_path, monkeypatch):
    for seed, complaint in enumerate(("too early", "too late")):
        monkeypatch.setenv("COMPLAINT", complaint)
        spec = spec_of("complaining").model_copy(update={"seed": seed})
        LocalLauncher(tmp_path, {"trackers": (), "plugins": (plugin,)}, Devices(cpu_slots=1)).run([spec])
        assert complaint in RunFolder(tmp_path, spec.run_id).failure()["message"]


def test_a_run_whose_input_failed_is_blocked(plugin, tmp_path):
    teacher, student = spec_of("crashing"), spec_of("dense")
    student = student.model_copy(update={"inputs": {"teacher": teacher}})
    endings = LocalLauncher(tmp_path, {"trackers": (), "plugins": (plugin,)}, Devices(cpu_slots=2)).run(
        [teacher, student]
    )
    assert endings == {teacher.run_id: "failed", student.run_id: "blocked"}
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

    from subnetbench.harness import execution

    monkeypatch.setattr(execution, "LOCK_PATIENCE_SECONDS", 0.3)
    spec = spec_of("dense")
    folder = RunFolder(tmp_path, spec.run_id)
    folder.create(spec.model_dump_json())
    with open(folder.lock_file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(execution.RunElsewhere, match="being worked on by another process"):
            execution.execute(spec, tmp_path, execution.RunSettings(trackers=()))
    assert not folder.failure_file.exists()
    assert execution.execute(spec, tmp_path, execution.RunSettings(trackers=())) == "finished"


def test_a_foreign_checkpoint_is_refused_and_kept(tmp_path):
    from subnetbench.harness.execution import RunSettings, execute
    from subnetbench.harness.state_files import save_state

    spec = spec_of("dense")
    folder = RunFolder(tmp_path, spec.run_id)
    folder.create(spec.model_dump_json())
    save_state(folder.last_checkpoint, {"run_id": "dense-emoji-s9-0123456789"})
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "failed"
    assert "belongs to run dense-emoji-s9-0123456789" in folder.failure()["message"]
    assert folder.last_checkpoint.exists()


def test_mixed_precision_trains(tmp_path):
    from subnetbench.harness.execution import RunSettings, execute

    compute = {"device": "cpu", "precision": "bf16"}
    spec = resolve("edge_popup", "emoji", config={**spec_of("edge_popup").config}, compute=compute)
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "finished"


def test_a_world_of_another_size_is_an_error(tmp_path, monkeypatch):
    from subnetbench.harness.execution import RunSettings, execute

    monkeypatch.setenv("WORLD_SIZE", "2")
    spec = spec_of("dense")
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "failed"
    assert RunFolder(tmp_path, spec.run_id).failure()["reason"] == "world-size"


def test_signals_are_given_back_after_a_run(tmp_path):
    from subnetbench.harness.execution import RunSettings, execute

    before = signal.getsignal(signal.SIGTERM)
    assert execute(spec_of("dense"), tmp_path, RunSettings(trackers=())) == "finished"
    assert signal.getsignal(signal.SIGTERM) == before
