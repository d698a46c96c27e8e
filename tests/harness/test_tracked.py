"""Trackers are told what a run is, keep what they write in its folder, and see every epoch once."""

import sys
from types import SimpleNamespace

import accelerate.tracking
import pytest
from accelerate.utils import LoggerType

from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.distributed.tracked import Tracked
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.trackers import tracked
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.training.monitor import Monitor


class Wandb:
    """Stands in for the package: what it was started with and what it was told."""

    def __init__(self, reachable=True):
        self.reachable = reachable
        self.starts, self.values, self.settings = [], [], {}
        self.config = SimpleNamespace(update=lambda values, allow_val_change: self.settings.update(values))

    def init(self, **options):
        if not self.reachable:
            raise ConnectionError("no such host")
        self.starts.append(options)
        return SimpleNamespace(log=lambda values, step: self.values.append((step, values)), finish=lambda: None)


@pytest.fixture
def wandb(monkeypatch):
    stand_in = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TENSORBOARD, LoggerType.WANDB])
    return stand_in


@pytest.fixture
def run(tmp_path):
    return Tracked("my_sweep", "dense-emoji-s0-1", {"seed": 0, "config.lr": 0.1}, tmp_path / "trackers")


def opened(run, names=("wandb", "tensorboard")):
    world = open_world(Compute(device="cpu"), trackers=names, folder=run.folder.parent)
    world.start_trackers(run)
    return world


def test_a_tracker_knows_project_name_config_and_folder(wandb, run, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    opened(run).close()
    (start,) = wandb.starts
    assert (start["project"], start["name"], start["dir"]) == (run.project, run.name, str(run.folder))
    assert wandb.settings == run.config


def test_the_users_own_project_goes_first(wandb, run, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "of the group")
    opened(run).close()
    assert wandb.starts[0]["project"] == "of the group"


def test_the_next_attempt_continues_and_a_fresh_training_does_not(wandb, run):
    for _ in range(2):
        opened(run).close()
    (run.folder / "tracked_as").unlink()  # as a rerun removes the folder
    opened(run).close()
    first, second, third = (start["id"] for start in wandb.starts)
    assert first == second != third
    assert all(start["resume"] == "allow" for start in wandb.starts)


def test_one_that_cannot_be_reached_is_left_out_with_a_warning(wandb, run, caplog):
    wandb.reachable = False
    world = opened(run)
    world.log({"loss": 1.0}, 1)
    world.close()
    assert "wandb is left out, the run is not tracked there: no such host" in caplog.text
    assert list(run.folder.glob("events.out.tfevents.*"))


def test_epochs_that_are_repeated_are_not_tracked_again(wandb, run, tmp_path):
    folder = RunFolder(tmp_path, run.name)
    folder.create("{}")
    for epochs in ([1, 2, 3], [2, 3, 4]):  # killed after the third epoch, resumed from the checkpoint of the first
        world = opened(run, ["wandb"])
        monitor = Monitor(world, folder)
        for done in epochs:
            monitor.log({"loss": 1 / done}, done)
        world.close()
    assert [step for step, _ in wandb.values] == [1, 2, 3, 4]


def test_mlflow_continues_the_run_that_it_began(run, monkeypatch):
    from subnetbench.harness.distributed.tracked import remember

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert run.options_of("mlflow") == {"run_name": run.name, "run_id": None}
    remember("mlflow", SimpleNamespace(info=SimpleNamespace(run_id="0a1b")), run)
    assert run.options_of("mlflow") == {"run_name": run.name, "run_id": "0a1b"}


def test_the_config_holds_every_field_of_the_spec(tmp_path):
    spec = resolve("dense", "emoji", config={"network": "conv2"}, seed=3)
    run = tracked(spec, RunSettings(sweep="mine"), RunFolder(tmp_path, spec.run_id))
    assert (run.project, run.name) == ("mine", spec.run_id)
    assert (run.config["seed"], run.config["method"], run.config["config.network"]) == (3, "dense", "conv2")
    assert all(isinstance(value, (str, int, float)) for value in run.config.values())
