"""The driver of a tuning as a job, against stub clients: submitted once, queued again, found again, cancelled."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.execution.slurm.queue_watch import QueueWatch
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.rows import collect
from subnetbench.harness.tuning.slurm import job as driver_job
from subnetbench.harness.tuning.slurm.submit import driver_resources, slurm_workers, submit_driver
from subnetbench.harness.tuning.storage import AlreadyDriven, only_driver
from subnetbench.harness.tuning.studies import TuningSettings


@pytest.fixture
def submit(out, tuning_file):
    """Submit the driver of six trials; keywords are fields of the tuning file."""

    def submit(**fields):
        content = tuning_file(**{"final_seeds": [], **fields})
        return submit_driver(content, Cluster(), TuningSettings(results=out, data_root=out, trackers=()))

    return submit


def runs_of(ledger):
    return [run for submission in ledger.read() for run, _ in submission.jobs_of_runs()]


def test_the_driver_is_a_job_of_one_core_that_is_submitted_once(submit, out, stub):
    driver = submit()
    assert (driver.job, driver.new) == ("101_0", True)
    script = (stub.folder / "script-101").read_text()
    for line in ("--cpus-per-task=1", "--requeue", "--signal=USR2@120", "--array=0-0%1", "--mem=4096M"):
        assert f"#SBATCH {line}" in script
    assert "subnetbench.harness.tuning.slurm.start" in script
    for state in ("pending", "running"):
        stub.set_queue(job101_0=state.upper())
        again = submit()
        assert (again.job, again.state, again.new) == ("101_0", state, False)
    assert sum(call.startswith("sbatch") for call in stub.calls()) == 1
    stub.set_queue(job101_0="TIMEOUT")
    assert submit().job == "102_0"


@pytest.mark.parametrize("driver", ["slurm", "here"])
def test_the_command_submits_a_driver_or_drives_in_this_shell(out, stub, driver):
    """Here the first trial is refused: whoever submits one is the driver."""
    (stub.folder / "refusal").write_text("sbatch: error: Batch job submission failed: Invalid partition name")
    asked = ["tune", "sleeping", "blank", "--trials", "2", "--on", "slurm", "--driver", driver, "--tracker", "none"]
    done = CliRunner().invoke(app, [*asked, "--out", str(out), "--data-root", str(out)])
    expected = "the driver was not submitted" if driver == "slurm" else "nothing could be submitted"
    assert str(done.exception).startswith(expected)
    (stub.folder / "refusal").unlink()
    if driver == "slurm":
        done = CliRunner().invoke(app, [*asked, "--out", str(out), "--data-root", str(out)])
        assert f"the driver is job 101_0, submitted; results in {out}" in done.stdout
        assert f"subnetbench logs driver --out {out}" in done.stdout


def test_no_driver_is_submitted_beside_one_in_a_shell(submit, out, stub):
    out.mkdir()
    with only_driver(out), pytest.raises(AlreadyDriven):
        submit()
    assert not any(call.startswith("sbatch") for call in stub.calls())


def test_a_refused_driver_is_an_error_with_the_reason(submit, out, stub):
    (stub.folder / "refusal").write_text("sbatch: error: Batch job submission failed: Job violates accounting policy")
    with pytest.raises(SubnetbenchError, match="violates accounting policy"):
        submit()


def test_what_the_driver_requests(out, tuning_file):
    cluster = Cluster.parse(
        {"partition": "gpu", "gpus": 2, "cpus": 16, "memory_gb": 64, "minutes": 1, "account": "lab"}
    )
    found = driver_resources(tuning_file(driver={"partition": "cpu"}), cluster)
    assert (found.partition, found.account, found.gpus, found.cpus, found.memory_gb) == ("cpu", "lab", 0, None, 4.0)
    assert found.signal_seconds == 30
    site = Cluster.parse({"max_jobs": 4, "driver": {"minutes": 600}})
    assert driver_resources(tuning_file(), site).minutes == 600
    assert [slurm_workers(tuning_file(), site, given) for given in (None, 2, 9)] == [3, 2, 3]


@pytest.fixture
def driver(out, stub, jobs_of, monkeypatch):
    """Submit a driver and do what its job does, in this process; trials are done whenever it beats."""
    jobs = jobs_of(out / "trials", out)
    monkeypatch.setattr(driver_job.DriverJob, "_tick", lambda self: jobs.work())
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "101")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    before = signal.getsignal(signal.SIGUSR2)

    def turn():
        submission = Ledger(out).latest()["driver"]
        monkeypatch.setenv("SLURM_JOB_NAME", submission.name)
        stub.set_queue(job101_0="RUNNING")
        return driver_job.DriverJob(Ledger(out).jobs_folder(submission.token)).run()

    yield SimpleNamespace(turn=turn, jobs=jobs)
    signal.signal(signal.SIGUSR2, before)


def test_a_driver_that_has_to_end_queues_itself_again_and_resumes(submit, out, stub, driver):
    submit(final_seeds=[101], default_rows=False)
    # The signal comes in the middle of the second submission: SLURM sends it to the client too.
    client = stub.folder / "sbatch"
    client.write_text(
        client.read_text().replace("echo $number\n", "[ $number = 103 ] && kill -USR2 $PPID $$\necho $number\n")
    )
    assert driver.turn() == driver_job.AGAIN_STATUS
    assert "scontrol requeue 101_0" in stub.calls()
    assert driver.turn() == 0
    assert RunFolder(out, "driver").state() == "finished"
    assert len(runs_of(Ledger(out / "trials"))) == 6
    assert len(set(driver.jobs.done)) == len(driver.jobs.done) == 7
    stub.set_queue(job101_0="COMPLETED")
    assert not submit(final_seeds=[101], default_rows=False).job


def test_a_driver_under_other_code_says_so_and_ends(submit, out, driver, monkeypatch):
    submit()
    monkeypatch.setattr(driver_job, "fingerprint", lambda plugins: {"torch": "0.1"})
    assert driver.turn() == 1
    assert "there are changes in" in RunFolder(out, "driver").failure().message
    assert not driver.jobs.done


def test_a_cancelled_driver_submits_nothing_and_stays_cancelled(submit, out, stub, driver):
    submit()
    result = CliRunner().invoke(app, ["cancel", str(out)])
    assert "cancelled 1 jobs" in result.stdout
    assert driver.turn() == 1
    assert not any("requeue" in call for call in stub.calls())
    assert submit().new


def test_status_and_logs_show_the_driver(submit, out, stub):
    submit()
    rows = collect([out])
    QueueWatch().look_at_all(rows)
    assert [(row.run, row.state, row.job) for row in rows] == [("driver", "queued", "101_0")]
    (folder,) = (Ledger(out).folder / "jobs").iterdir()
    (folder / "101_0_0_log.out").write_text("[1 of 6 trials] what it said\n")
    said = CliRunner().invoke(app, ["logs", "driver", "--out", str(out)]).stdout
    assert "[1 of 6 trials] what it said" in said
    RunFolder(out, "driver").progress_file.write_text(
        json.dumps(
            {"time": time.time(), "seconds": 9.0, "stage": "search", "epoch": 1, "epochs": 6, "pid": os.getpid()}
        )
    )
    stub.set_queue(job101_0="RUNNING")
    shown = json.loads(CliRunner().invoke(app, ["status", str(out), "--json"]).stdout)
    assert (shown[0]["state"], shown[0]["stage"], shown[0]["epoch"]) == ("running", "search", "1/6")
