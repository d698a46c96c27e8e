"""Estimates of sweeps: the arithmetic of queues, and a small sweep's reality."""

import time
from pathlib import Path

import pytest

from subnetbench.harness.api.estimate import RunCost, combine, measure
from subnetbench.harness.core import registry
from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.data.registry import DATASETS
from subnetbench.harness.execution.devices import Devices
from subnetbench.harness.execution.local import LocalLauncher
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.registry import METHODS
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder

PLUGIN = Path(__file__).parents[1] / "slurm" / "paced.py"


def cost(seconds, *, device="cuda", kept=10, checkpoint=100):
    return RunCost(device, 10, seconds / 10, 0.0, kept, checkpoint)


def test_runs_queue_for_devices_and_wait_for_their_inputs(tiny_spec):
    teacher = tiny_spec(seed=7)
    pupil = tiny_spec("edge_popup").model_copy(update={"inputs": {"teacher": teacher}})
    wide = tiny_spec("magnitude", processes=2)
    other = tiny_spec("random_mask")
    costs = {teacher.config_hash: cost(10), pupil.config_hash: cost(5), wide.config_hash: cost(3)}
    costs[other.config_hash] = cost(4, device="cpu", kept=1)
    # Two devices: teacher and other at once; both are free at 10 for the wide run; the pupil follows.
    total = combine([teacher, other, wide, pupil], costs, slots=2)
    assert total.wall_seconds == 18
    assert total.busy_seconds == 10 + 4 + 2 * 3 + 5
    assert total.gpu_seconds == 10 + 2 * 3 + 5
    assert total.kept_bytes == 31
    assert total.most_bytes == 31 + 200
    assert combine([teacher, other, wide, pupil], costs, slots=2, start_seconds=1).wall_seconds == 21


def test_steps_and_sizes_are_counted_and_nothing_is_left(tiny_spec, tmp_path):
    spec = tiny_spec(evaluate_every=1)
    (found,) = measure([spec, tiny_spec(evaluate_every=1, seed=3)], tmp_path, seconds=0.1).values()
    assert not list(tmp_path.iterdir())
    assert found.steps == 2 * 3
    assert found.seconds_per_step > 0
    execute(spec, tmp_path / "run", RunSettings(trackers=()))
    (row,) = read_records([tmp_path / "run"]).runs.to_pylist()
    assert found.training_macs == row["training_macs"] > 0
    parameters = 4 * 38_000
    assert found.checkpoint_bytes > found.kept_bytes > parameters


@pytest.mark.slow
def test_a_small_sweep_takes_as_long_as_planned(tmp_path, monkeypatch):
    # Pauses make up most of the time, so that a busy machine does not decide the test.
    for each in (METHODS, DATASETS):
        monkeypatch.setattr(each, "_classes", dict(each._classes))
    monkeypatch.setattr(registry, "_plugins", {})
    load_plugin(PLUGIN)
    monkeypatch.setenv("PACE", "2")
    config = {"network": "conv2", "image_size": 8, "batch_size": 64, "epochs": 2, "limit_steps": 8}
    specs = [resolve("paced", "emoji", config=config, seed=seed, compute={"device": "cpu"}) for seed in range(2)]
    planned = combine(specs, measure(specs, tmp_path), slots=2)
    settings = RunSettings(data_root=tmp_path, trackers=(), plugins=(PLUGIN,))
    launcher = LocalLauncher(tmp_path, settings, Devices(cpu_slots=2))
    # The fork server has to be there first: a run of a sweep that is under way finds it.
    first = resolve("paced", "emoji", config={**config, "limit_steps": 1}, compute={"device": "cpu"})
    launcher.run([first])
    began = time.monotonic()
    launcher.run(specs)
    took = time.monotonic() - began
    assert planned.wall_seconds == pytest.approx(took, rel=0.2)
    kept = sum(RunFolder(tmp_path, spec.run_id).model_file.stat().st_size for spec in specs)
    assert planned.kept_bytes == pytest.approx(kept, rel=0.01)
