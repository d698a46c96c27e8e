"""A study on a real cluster whose driver and trials are disturbed: no trial is lost, doubled or left running."""

import json
from collections import Counter

import optuna
import pyarrow.parquet as pq
import pytest

from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.runs.folder import find_runs
from subnetbench.harness.tuning.storage import open_storage

pytestmark = pytest.mark.timeout(600)

TRIALS = 6
STUDY = {
    "name": "test",
    "budget": {"trials": TRIALS},
    "workers": 3,
    "sampler": "random",
    # Every trial reports its validations, and none is pruned.
    "pruner": {"name": "median", "n_startup_trials": 100},
    "final_seeds": [101],
    "default_rows": False,
    "resources": {"minutes": 60, "cpus": 1},
    "methods": [
        {
            "method": "paced",
            "dataset": "emoji",
            "config": {"network": "conv2", "image_size": 8, "batch_size": 16, "epochs": 2},
            "compute": {"device": "cpu"},
        }
    ],
}


@pytest.fixture
def tuning(sweep):
    """A sweep's folder with a tuning file in it, and quick looks at the queue."""
    made = sweep([], name="tuning", SUBNETBENCH_LOOK_SECONDS="1", PACE="0.015")
    (made.folder / "tuning.yaml").write_text(json.dumps(STUDY))
    return made


def tune(tuning):
    options = ["--on", "slurm", "--code-changes", "allow", "--tracker", "none"]
    return tuning.call("tune", "tuning.yaml", *options).stdout


def trials_of(tuning):
    storage = open_storage(str(tuning.results / "study.log"))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)


def jobs_of_runs(ledger):
    return [pair for submission in ledger.read() for pair in submission.jobs_of_runs()]


def test_a_disturbed_study_loses_and_doubles_no_trial(tuning):
    trials_folder = tuning.results / "trials"
    ledger, of_trials = Ledger(tuning.results), Ledger(trials_folder)
    assert "submitted" in tune(tuning)
    assert "nothing was submitted" in tune(tuning)
    driver = dict(jobs_of_runs(ledger))["driver"]

    def checkpointed():
        return [run for run in find_runs(trials_folder) if run.last_checkpoint.exists()]

    tuning.wait_for("a checkpoint", checkpointed)
    killed = checkpointed()[0].run_id
    tuning.cluster.call("scancel", "--signal=KILL", dict(jobs_of_runs(of_trials))[killed])
    tuning.wait_for("its resubmission", lambda: Counter(run for run, _ in jobs_of_runs(of_trials))[killed] == 2)
    tuning.cluster.call("scancel", "--signal=USR2", driver)
    tuning.wait_for("the driver's end", lambda: not tuning.jobs_in_queue())

    done = trials_of(tuning)
    assert [trial.number for trial in done] == list(range(TRIALS))
    assert {trial.state.name for trial in done} == {"COMPLETE"}
    assert len({json.dumps(trial.params) for trial in done}) == TRIALS
    assert len(find_runs(trials_folder)) == TRIALS
    for trial in done:
        ((run_id, _, _),) = trial.user_attrs["outcome"]["runs"]
        (record,) = (trials_folder / "records").glob(f"{run_id}*.parquet")
        rows = pq.read_table(record).to_pylist()
        scored = [row["value"] for row in rows if row["metric"] == "top1" and not row["variant"].startswith("trivial")]
        assert scored[:1] == trial.values
        assert list(trial.intermediate_values) == [1, 2]
        assert {row["trial"] for row in rows} == {trial.number}
    runs = Counter(run for run, _ in jobs_of_runs(of_trials))
    assert {run: count for run, count in runs.items() if count > 1} == {killed: 2}
    assert [pair for pair in jobs_of_runs(ledger) if pair[0] == "driver"] == [("driver", driver)]
    (log,) = (tuning.results / "slurm" / "jobs").glob(f"*/{driver}_0_log.out")
    assert log.read_text().count("queued again") == 1

    rows = {row["run"]: row for row in tuning.rows()}
    assert rows.pop("driver")["epoch"] == f"{TRIALS}/{TRIALS}"
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert len(rows) == TRIALS + 1
    assert "nothing is left to do" in tune(tuning)
