"""What `status` says of submitted runs, from their files and one call of squeue."""

import json
import subprocess
import sys
import time

import pytest

from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.queue_watch import QueueWatch, job_log_of
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.rows import Loss, collect


@pytest.fixture
def submitted(stub, submitter, plan, tiny_spec, tmp_path):
    """Four submitted runs: jobs 101_0 to 101_3; returns their folders."""
    specs = [tiny_spec(seed=seed) for seed in range(4)]
    submitter().submit(plan(specs))
    return [RunFolder(tmp_path / "results", spec.run_id) for spec in specs]


def look(results):
    watch, rows = QueueWatch(), collect([results])
    watch.look_at_all(rows)
    return {row.run: row.to_json() for row in rows}, watch.take_notes()


def beat(folder, *, age=0.0, **fields):
    folder.progress_file.write_text(json.dumps({"time": time.time() - age, "step": 3, "seconds": 1.0, **fields}))


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


def test_a_fresh_heartbeat_beats_an_older_answer_of_the_queue(stub, submitted, tmp_path):
    beat(submitted[0])
    beat(submitted[1], ended="interrupted")
    beat(submitted[2], age=60)
    stub.set_queue(job101_0=None, job101_1=None, job101_2="NODE_FAIL")
    rows, _ = look(tmp_path / "results")
    assert [rows[folder.run_id]["state"] for folder in submitted[:3]] == ["running", "lost", "lost"]


def test_what_the_scheduler_refused_says_why(stub, submitted, tmp_path):
    ledger = Ledger(tmp_path / "results")
    refused = RunFolder(tmp_path / "results", "dense-emoji-s9-0123456789")
    refused.create("{}")
    submission = ledger.new("test", [[refused.run_id]], state="refused")
    submission.detail = "invalid partition specified: gpuu"
    ledger.write(submission)
    rows, _ = look(tmp_path / "results")
    assert rows[refused.run_id]["state"] == "refused"
    assert "invalid partition specified: gpuu; the same command" in rows[refused.run_id]["detail"]


def test_accounting_before_slurm_23_is_asked_in_its_own_words(stub, submitted, tmp_path):
    stub.set_queue(job101_0=None)
    (stub.folder / "accounting").write_text("101_0|OUT_OF_MEMORY|test|n1|0:125\n")
    sacct = stub.folder / "sacct"
    sacct.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--array*) echo "sacct: unrecognized option \'--array\'" >&2; exit 1;; esac\n'
        f"cat {stub.folder / 'accounting'}\n"
    )
    rows, notes = look(tmp_path / "results")
    assert "out_of_memory" in rows[submitted[0].run_id]["detail"]
    assert not notes


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
    details = {row.run: row.detail for row in rows}
    assert "out_of_memory, exit status 0:125" in details[submitted[0].run_id]
    assert "cancelled" in details[submitted[1].run_id]
    assert sum(call.startswith("sacct") for call in stub.calls()) == 1


def test_what_is_known_of_lost_jobs_is_kept_apart(stub, submitter, submitted, tmp_path):
    stub.set_queue(job101_0=None, job101_1=None, job101_2="TIMEOUT")
    (stub.folder / "accounting").write_text("101_1|CANCELLED by 0|test|n1|0:0\n")
    ledger = Ledger(tmp_path / "results")
    unconfirmed = RunFolder(tmp_path / "results", "dense-emoji-s9-0123456789")
    unconfirmed.create("{}")
    ledger.write(ledger.new("test", [[unconfirmed.run_id]]))
    rows = collect([tmp_path / "results"])
    QueueWatch().look_at_all(rows)
    losses = {row.run: row.loss for row in rows}
    expected = [Loss.FORGOTTEN, Loss.ENDED, Loss.ENDED, None, Loss.UNCONFIRMED]
    assert [losses[folder.run_id] for folder in (*submitted, unconfirmed)] == expected
    assert {row.state for row in rows if row.loss} == {"lost"}


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
        "import subnetbench.harness.execution.slurm.queue_watch, subnetbench.harness.execution.slurm.profile\n"
        "import subnetbench.harness.cli.slurm\n"
        "print([name for name in ('torch', 'submitit', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
