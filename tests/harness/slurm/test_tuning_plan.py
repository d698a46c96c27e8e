"""The plan file of a driver's job, and `tune` on a cluster from Python."""

import json
from pathlib import Path

import pytest

from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.tuning.slurm.plan import DriverPlan
from subnetbench.harness.tuning.studies import TuningSettings
from subnetbench.harness.tuning.tune import tune


@pytest.fixture
def plan(tuning_file):
    content = tuning_file(sampler={"name": "tpe", "multivariate": True}, entry={"space": {"x": {"uniform": [0, 0.5]}}})
    settings = TuningSettings(Path("/results"), "postgresql://server/db", 3, Path("/data"), ("tensorboard",), False)
    cluster = Cluster.parse({"partition": "cpu", "max_jobs": 4})
    return DriverPlan("token", content, cluster, settings, (Path("/plugin.py"),), {"torch": "2.0"}, "allow")


def test_a_plan_comes_back_from_its_file(plan, tmp_path):
    plan.write(tmp_path)
    assert DriverPlan.read(tmp_path) == plan
    assert json.loads((tmp_path / "plan.json").read_text())["settings"]["plugins"] == ["/plugin.py"]


@pytest.mark.parametrize("lost", ["token", "results", "settings", "code"])
def test_a_damaged_plan_is_an_error_that_names_its_file(plan, tmp_path, lost):
    plan.write(tmp_path)
    plain = json.loads((tmp_path / "plan.json").read_text())
    del plain[lost]
    (tmp_path / "plan.json").write_text(json.dumps(plain))
    with pytest.raises(SubnetbenchError, match=rf"plan\.json is missing or damaged: '{lost}'"):
        DriverPlan.read(tmp_path)


def test_a_misspelt_field_is_named(plan):
    plain = plan.to_json()
    plain["settings"]["file"]["budgit"] = plain["settings"]["file"].pop("budget")
    with pytest.raises(UserError, match="budgit"):
        DriverPlan.from_json(plain)


def test_tune_submits_a_driver_once_and_reads_what_it_left(out, stub):
    def call(on):
        options = {"results": out, "data_root": out, "trackers": ["none"], "workers": 1, "final": False}
        config = {"seconds": 0.0, "epochs": 1}
        return tune("sleeping", "blank", trials=2, config=config, on=on, cluster=Cluster(), **options)

    submitted = call("slurm")
    assert (submitted.status, submitted.driver_job, submitted.path) == ("submitted", "101_0", out)
    stub.set_queue(job101_0="RUNNING")
    again = call("slurm")
    assert (again.status, again.driver_job, again.driver_state) == ("driving", "101_0", "running")
    stub.set_queue(job101_0="COMPLETED")
    here = call("here")
    there = call("slurm")
    assert (there.status, there.driver_job) == ("complete", "")
    assert there.studies == here.studies
    assert there.best_config == here.best_config
