"""What `status` says of submitted runs, from their files and one call of squeue."""

import json
import subprocess
import sys
import time

import pytest

from subnetbench.harness.launchers.slurm.ledger import Ledger
from subnetbench.harness.launchers.slurm.states import QueueWatch, job_log_of
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.run_status import collect


@pytest.fixture
def submitted(stub, submitter, plan, tiny_spec, tmp_path):
    """Four submitted runs: jobs 101_0 to 101_3; returns their folders."""
    specs = [tiny_spec(seed=seed) for seed in range(4)]
    submitter().submit(plan(specs))
    return [RunFolder(tmp_path / "results", spec.run_id) for spec in specs]


def look(results):
    watch, rows = QueueWatch(), collect([results])
    watch.look_at_all(rows)
    return {row["run"]: row for row in rows}, watch.take_notes()


def beat(folder, *, age=0.0, **facts):
    folder.progress_file.write_text(json.dumps({"time": time.time() - age, "step": 3, "seconds": 1.0, **facts}))


def test_states_come_from_files_and_queue_together(stub, submitted, tmp_path):
    running, requeued, stale, dead = submitted
    beat(running, epoch=2, epochs=5)
    beat(requeued, ended="interrupted")
    beat(stale, age=1000)
    beat(dead, age=1000)
    stub.set_queue(job101_0="RUNNING", job101_2="RUNNING", job101_3="NODE_FAIL")
    text = (stub.folder / "queue").read_text().replace("101_1|PENDING|0", "101_1|PENDING|3")
    (stub.folder / "queue").write_text(text)
    rows, notes = look(tmp_path / "results")
    assert [rows[folder.run_id]["state"] for folder in submitted] == ["running", "queued", "stale", "lost"]
    assert rows[running.run_id]["epoch"] == "2/5"
    assert rows[running.run_id]["job"] == "101_0"
    assert "queued again 3 times" in rows[requeued.run_id]["detail"]
    assert "no sign of life for 1000 s" in rows[stale.run_id]["detail"]
    assert "node_fail" in rows[dead.run_id]["detail"]
    assert not notes
    assert sum(call.startswith(("squeue", "sacct")) for call in stub.calls()) == 1


def test_a_held_job_says_so(stub, submitted, tmp_path):
    stub.set_queue(job101_0="PENDING:launch failed requeued held")
    rows, _ = look(tmp_path / "results")
    assert rows[submitted[0].run_id]["state"] == "held"


def test_what_the_queue_forgot_is_asked_of_accounting_once(stub, submitted, tmp_path):
    stub.set_queue(job101_0=None, job101_1=None)
    (stub.folder / "accounting").write_text("101_0|OUT_OF_MEMORY|test|n1|0:125\n101_1|CANCELLED by 0|test|n1|0:0\n")
    watch = QueueWatch()
    for _ in range(2):
        rows = collect([tmp_path / "results"])
        watch.look_at_all(rows)
    details = {row["run"]: row["detail"] for row in rows}
    assert "out_of_memory, exit status 0:125" in details[submitted[0].run_id]
    assert "cancelled" in details[submitted[1].run_id]
    assert sum(call.startswith("sacct") for call in stub.calls()) == 1


def test_without_accounting_a_lost_job_is_still_lost(stub, submitted, tmp_path):
    stub.set_queue(job101_0=None)
    rows, notes = look(tmp_path / "results")
    assert rows[submitted[0].run_id]["state"] == "lost"
    assert "accounting storage is disabled" in notes[0]


def test_without_a_scheduler_files_speak_alone(stub, submitted, tmp_path):
    beat(submitted[0])
    (stub.folder / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: cannot connect' >&2\nexit 1\n")
    rows, notes = look(tmp_path / "results")
    assert rows[submitted[0].run_id]["state"] == "running"
    assert "states are from files alone" in notes[0]


def test_pupils_wait_for_a_teacher_and_are_blocked_by_its_failure(stub, submitter, plan, tiny_spec, tmp_path):
    teacher = tiny_spec(seed=7)
    pupil = tiny_spec("edge_popup").model_copy(update={"inputs": {"teacher": teacher}})
    submitter().submit(plan([pupil]))
    # SLURM gives the reason only once its scheduler has looked at the job.
    for reason in ("None", "Dependency"):
        stub.set_queue(job102_0=f"PENDING:{reason}")
        rows, _ = look(tmp_path / "results")
        assert (rows[pupil.run_id]["state"], rows[pupil.run_id]["detail"]) == ("waiting for input", teacher.run_id)
    stub.set_queue(job101_0=None, job102_0="CANCELLED")
    RunFolder(tmp_path / "results", teacher.run_id).failure_file.write_text('{"reason": "nan", "message": "x"}')
    rows, _ = look(tmp_path / "results")
    assert rows[teacher.run_id]["state"] == "failed"
    assert (rows[pupil.run_id]["state"], rows[pupil.run_id]["detail"]) == ("blocked", f"{teacher.run_id} failed")


def test_the_log_of_a_run_is_that_of_its_last_job(stub, submitted, tmp_path):
    assert job_log_of(submitted[2]) is None
    (submission,) = Ledger(tmp_path / "results").read()
    path = tmp_path / "results" / "slurm" / "jobs" / submission.token / "101_2_0_log.out"
    path.write_text("started\n")
    assert job_log_of(submitted[2]) == path


def test_looking_does_not_import_torch():
    code = (
        "import sys\n"
        "import subnetbench.harness.launchers.slurm.states, subnetbench.harness.clusters\n"
        "import subnetbench.harness.cli.cluster\n"
        "print([name for name in ('torch', 'submitit', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
