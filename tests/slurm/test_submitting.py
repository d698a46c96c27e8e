"""Submitting, collecting, cancelling and resuming sweeps on a real cluster; each run is submitted once."""

import os
import pickle
import signal
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

QUICK = {"epochs": 1, "limit_steps": 3}


def program(folder, name, text):
    """A program that is found before SLURM's own; returns the PATH with it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}:/usr/sbin"


def test_a_sweep_is_submitted_survives_its_submitter_and_is_collected(sweep):
    quick = sweep(
        [
            {"method": "dense", "seeds": [0, 1, 2], "config": QUICK},
            {"method": "pupil", "config": QUICK, "resources": {"minutes": 50}},
            {"method": "paced", "seeds": [0, 1], "config": QUICK, "resources": {"runs_per_job": 2}},
        ]
    )
    dry = quick.submit("--dry-run").stdout
    assert "#SBATCH --array=0-3%4" in dry
    assert "#SBATCH --time=50" in dry
    assert not quick.results.exists()
    said = quick.submit().stdout
    # The pupil's teacher comes along, in the array of what asks for the same.
    assert "submitted 7 runs as 6 jobs in 3 arrays" in said
    again = quick.submit().stdout
    assert "submitted 0 runs" in again
    states = {row["run"].split("-")[0]: row["state"] for row in quick.rows()}
    assert states["pupil"] == "waiting for input"
    quick.wait_until_finished()
    assert "7 finished" in quick.call("status", quick.results).stdout
    assert "skipped 7: finished before" in quick.submit().stdout
    assert "paced" in quick.call("logs", "paced", "--out", quick.results).stdout

    for folder in (quick.results / "slurm" / "jobs").iterdir():
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.glob("*_submitted.pkl"):
            arguments = pickle.loads(path.read_bytes()).args
            assert set(arguments) <= {run.run_id for run in quick.runs()}


def test_a_submitter_killed_after_sbatch_has_submitted(sweep, tmp_path):
    killed = sweep([{"method": "paced", "seeds": [0, 1], "config": QUICK}])
    real = killed.cluster.call("sh", "-c", "command -v sbatch").strip()
    # The child that runs sbatch ends its parent once the job is in, before the parent can write down its number.
    path = program(tmp_path / "bin", "sbatch", f'{real} "$@"; kill -9 $PPID')
    died = killed.submit(PATH=path, check=None, apart=True)
    assert died.returncode == -signal.SIGKILL
    assert [each["job"] for each in killed.submissions()] == [""]
    said = killed.submit().stdout
    assert "submitted 0 runs" in said
    assert "skipped 2: in the queue already" in said
    killed.wait_until_finished()
    assert len(killed.submissions()) == 1
    assert killed.submissions()[0]["job"]


def test_two_people_resume_at_once(sweep):
    shared = sweep([{"method": "paced", "seeds": [0, 1, 2], "config": QUICK}])
    submitters = [
        subprocess.Popen(
            shared.command(*shared.submission()),
            cwd=shared.folder,
            env=shared.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = sorted(each.communicate(timeout=200)[0] for each in submitters)
    assert "submitted 0 runs" in said[0]
    assert "skipped 3: in the queue already" in said[0] or "finished before" in said[0]
    assert "submitted 3 runs" in said[1]
    shared.wait_until_finished()
    assert len(shared.submissions()) == 1


def test_cancelled_runs_keep_their_work_and_are_resumed(sweep, undisturbed, same_weights):
    cancelled = sweep([{"method": "paced"}], SUBNETBENCH_CHECKPOINT_SECONDS="10000")
    cancelled.submit()
    cancelled.wait_for("training", lambda: cancelled.step() > 30)
    assert "cancelled 1 jobs" in cancelled.call("cancel", cancelled.results).stdout
    cancelled.wait_for("its end", lambda: not cancelled.jobs_in_queue())
    assert cancelled.row()["state"] == "cancelled"
    assert cancelled.run().last_checkpoint.exists()
    assert "submitted 1 runs" in cancelled.submit().stdout
    cancelled.wait_until_finished()
    same_weights(cancelled.weights(), undisturbed())


def test_the_same_failure_twice_is_the_end_and_blocks_the_pupil(sweep):
    teacher = {"method": "broken", "config": {"network": "conv2", "image_size": 8, "epochs": 1}}
    broken = sweep([{"method": "pupil", "config": QUICK, "inputs": {"teacher": teacher}}])
    broken.submit()
    broken.wait_for("the end of its jobs", lambda: not broken.jobs_in_queue())
    rows = {row["run"].split("-")[0]: row for row in broken.rows()}
    assert rows["broken"]["state"] == "failed"
    assert "this method is broken on purpose" in rows["broken"]["detail"]
    assert rows["pupil"]["state"] == "blocked"
    log = "".join(path.read_text() for path in broken.results.rglob("broken*/log.txt"))
    assert log.count("failed: RuntimeError: this method is broken on purpose") == 2
    assert not list(broken.results.rglob("pupil*/log.txt"))
    assert "skipped 1: blocked by a failed run" in broken.submit().stdout


def test_a_refusing_sbatch(sweep):
    refused = sweep([{"method": "dense", "config": QUICK}], resources={"partition": "nowhere"})
    done = refused.submit(check=1)
    assert "nvalid partition" in done.stderr
    assert "submitted 0 runs" in done.stdout
    (submission,) = refused.submissions()
    assert submission["state"] == "refused"


def test_a_silent_scheduler_costs_its_time_limit_and_no_run(sweep, tmp_path):
    silent = sweep([{"method": "dense", "config": QUICK}])
    path = program(tmp_path / "bin", "squeue", "sleep 300 & sleep 300")
    quiet = sweep([{"method": "dense", "config": QUICK}])
    quiet.submit()
    began = time.monotonic()
    done = silent.submit(PATH=path, SUBNETBENCH_SLURM_SECONDS="2", check=1)
    assert time.monotonic() - began < 60
    assert "squeue did not answer within 2 s" in done.stderr
    assert len(silent.submissions()) == 1
    shown = silent.call("status", silent.results, PATH=path, SUBNETBENCH_SLURM_SECONDS="2")
    assert "states are from files alone" in shown.stderr


@pytest.mark.parametrize("decision", ["refuse", "allow"])
def test_code_that_changes_between_submission_and_start(sweep, tmp_path, decision):
    plugin = tmp_path / "own.py"
    plugin.write_text(Path(__file__).with_name("paced.py").read_text())
    changed = sweep([{"method": "paced", "config": QUICK}], resources={"sbatch": {"begin": "now+20"}}, plugin=plugin)
    changed.submit("--code-changes", decision, apart=True)
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    changed.wait_for("the end of its job", lambda: not changed.jobs_in_queue())
    if decision == "allow":
        assert changed.row()["state"] == "finished"
        log = "".join(path.read_text() for path in changed.results.rglob("*_log.out"))
        assert f"since this run was submitted there are changes in: {plugin}" in log
    else:
        assert changed.row()["state"] == "failed"
        assert "code-changed: since this run was submitted there are changes in:" in changed.row()["detail"]


def test_a_job_that_ends_or_stops_without_a_word_and_no_accounting(sweep, cluster, undisturbed, same_weights):
    silent = sweep([{"method": "paced"}])
    silent.submit()
    silent.wait_until_training()
    task = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"{silent.results}/slurm/jobs".encode() in _command(entry)
    )
    pid = silent.run().heartbeat().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        # As if two minutes had gone by.
        heartbeat = replace(silent.run().heartbeat(), time=time.time() - 1000)
        silent.run().write_heartbeat(heartbeat)
        assert silent.row()["state"] == "stale"
        assert "no sign of life" in silent.row()["detail"]
        cluster.stop_daemon("slurmdbd")
        os.kill(task, signal.SIGKILL)
        silent.wait_for("its end", lambda: not silent.jobs_in_queue())
    finally:
        os.kill(pid, signal.SIGKILL)
    try:
        assert silent.row()["state"] == "lost"
        assert subprocess.run(["sacct"], env=cluster.environment, capture_output=True, timeout=60).returncode != 0
        assert "submitted 1 runs" in silent.submit().stdout
        silent.wait_until_finished()
    finally:
        cluster.start_accounting()
    same_weights(silent.weights(), undisturbed())


def _command(entry):
    try:
        command = (entry / "cmdline").read_bytes()
    except OSError:
        return b""
    return command if b"python" in command.split(b"\0")[0] else b""
