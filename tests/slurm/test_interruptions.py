"""Whatever happens to the jobs of a run, it ends with the bits of a run that nothing happened to."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1000)

PACED = [{"method": "paced"}]


def processes_of(run):
    """Process ids of the ranks of a run: they hold its log open."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            targets = {os.readlink(link) for link in (entry / "fd").iterdir()} if entry.name.isdigit() else set()
        except OSError:
            continue
        if str(run.log_file) in targets:
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="module", autouse=True)
def limited(cluster, make_sweep):
    """A run that meets its time limit again and again while the other tests run."""
    limited = make_sweep(
        [{"method": "paced", "config": {"epochs": 3}}], resources={"minutes": 1, "signal_seconds": 5}, PACE="0.5"
    )
    limited.submit()
    return limited


def test_requeue_in_the_middle_of_an_epoch(sweep, undisturbed, same_weights):
    disturbed = sweep(PACED)
    disturbed.submit()
    disturbed.wait_until_training()
    disturbed.cluster.call("scontrol", "requeue", disturbed.job())
    disturbed.wait_for("requeueing", disturbed.restarts)
    assert disturbed.step() % 63 != 0
    row = disturbed.row()
    assert row["requeues"] == 1
    assert "queued again once" in row["detail"]
    disturbed.wait_until_finished()
    same_weights(disturbed.weights(), undisturbed())


def test_preemption_without_a_user_signal(sweep, undisturbed, same_weights):
    """SIGTERM, then SIGKILL: the run has no more than that to write its checkpoint."""
    disturbed = sweep(PACED, SUBNETBENCH_CHECKPOINT_SECONDS="10000")
    disturbed.submit()
    disturbed.wait_for("training", lambda: disturbed.step() > 30)
    assert not disturbed.run().last_checkpoint.exists()
    disturbed.cluster.call(
        "sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 4"
    )
    disturbed.wait_for("a checkpoint", disturbed.run().last_checkpoint.exists, 30)
    disturbed.wait_until_finished()
    same_weights(disturbed.weights(), undisturbed())


def test_a_user_signal_is_answered_by_checkpoint_and_requeue(sweep, undisturbed, same_weights):
    disturbed = sweep([{"method": "paced", "compute": {"processes": 2}}], resources={"nodes": 2})
    disturbed.submit()
    disturbed.wait_until_training()
    disturbed.cluster.call("scancel", "--signal=USR2", disturbed.job())
    disturbed.wait_for("requeueing", disturbed.restarts)
    disturbed.wait_until_finished()
    same_weights(disturbed.weights(), undisturbed(processes=2))


def test_a_termination_signal_while_the_job_may_continue(sweep, undisturbed, same_weights):
    """As in the grace period before a preemption that will not requeue: the job does it itself."""
    disturbed = sweep(PACED)
    disturbed.submit()
    disturbed.wait_until_training()
    disturbed.cluster.call("scancel", "--signal=TERM", disturbed.job())
    disturbed.wait_for("requeueing", disturbed.restarts)
    disturbed.wait_until_finished()
    same_weights(disturbed.weights(), undisturbed())


def test_a_node_that_is_set_down(sweep, cluster, undisturbed, same_weights):
    disturbed = sweep(PACED)
    disturbed.submit()
    disturbed.wait_until_training()
    node = disturbed.node()
    cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        disturbed.wait_for("another start", disturbed.restarts)
        disturbed.wait_until_finished()
    finally:
        cluster.resume(node)
    same_weights(disturbed.weights(), undisturbed())


def test_a_node_whose_daemon_is_killed(sweep, cluster, undisturbed, same_weights):
    """The job lives on while SLURM gives it up and starts it elsewhere: only one of the two may train."""
    disturbed = sweep(PACED)
    disturbed.submit()
    disturbed.wait_until_training()
    node = disturbed.node()
    cluster.stop_daemon(node, signal.SIGKILL)
    try:
        disturbed.wait_for("giving the node up", lambda: "down" in cluster.call("sinfo", "-hN", "-n", node, "-o", "%T"))
        disturbed.wait_until_finished()
    finally:
        cluster.start_node(node)
        disturbed.wait_for("the node's return", lambda: "idle" in cluster.call("sinfo", "-hN", "-n", node, "-o", "%T"))
    same_weights(disturbed.weights(), undisturbed())


def test_a_rank_that_is_killed(sweep, undisturbed, same_weights):
    """The other rank ends, the job is tried again once and resumes."""
    disturbed = sweep([{"method": "paced", "compute": {"processes": 2}}], resources={"nodes": 2})
    disturbed.submit()
    disturbed.wait_until_training()
    ranks = processes_of(disturbed.run())
    assert len(ranks) == 2
    os.kill(max(ranks), signal.SIGKILL)
    began = time.monotonic()
    disturbed.wait_for("the end of both", lambda: not set(processes_of(disturbed.run())) & set(ranks), 60)
    assert time.monotonic() - began < 60
    disturbed.wait_until_finished()
    same_weights(disturbed.weights(), undisturbed(processes=2))


def test_a_full_disk_at_checkpoint_time(sweep, undisturbed, same_weights, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=True)
    try:
        disturbed = sweep(PACED, name="small/sweep")
        disturbed.submit()
        disturbed.wait_until_training()
        filler = small / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False, stderr=subprocess.DEVNULL)
        disturbed.wait_for("giving up", lambda: not disturbed.jobs_in_queue())
        assert not disturbed.run().finished_file.exists()
        filler.unlink()
        disturbed.submit("--retry-failed")
        disturbed.wait_until_finished()
        same_weights(disturbed.weights(), undisturbed())
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_time_limit_shorter_than_the_run(limited, undisturbed, same_weights):
    expected = undisturbed(epochs=3)
    limited.wait_until_finished(seconds=800)
    log = "".join(path.read_text() for path in limited.results.rglob("*_log.out"))
    assert log.count("Requeued job") >= 2
    same_weights(limited.weights(), expected)
