"""Submission against stub clients: what is written, which clients are called, and that nothing is submitted twice."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.slurm import commands
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.settle import cancel_all, settle
from subnetbench.harness.runs.folder import RunFolder

GOLDEN = Path(__file__).with_name("submission.sh")


@pytest.fixture
def teacher_and_pupil(tiny_spec):
    """A run and another that starts from it, whatever its method makes of that."""
    teacher = tiny_spec(seed=7)
    return teacher, tiny_spec("edge_popup").model_copy(update={"inputs": {"teacher": teacher}})


def test_the_batch_file_is_what_it_was(stub, submitter, plan, tiny_spec, tmp_path):
    profile = {
        "partition": "gpu",
        "account": "lab",
        "qos": "long",
        "constraint": "a100",
        "gpus": 1,
        "cpus": 6,
        "memory_gb": 7.5,
        "minutes": 240,
        "array_parallelism": 8,
        "setup": ["module load cuda"],
        "python": "apptainer exec image.sif python",
        "sbatch": {"mail-type": "END", "exclusive": True},
    }
    teacher = tiny_spec(seed=7, device="auto")
    pupil = tiny_spec("edge_popup", device="auto").model_copy(update={"inputs": {"teacher": teacher}})
    submitter(profile, sweep={"methods": {"edge_popup": {"memory_gb": 16}}}).submit(plan([pupil]))
    text = (stub.folder / "script-102").read_text()
    text = text.replace(str(tmp_path / "results"), "/RESULTS")
    assert re.sub(r"[0-9a-f]{10}", "TOKEN", text) == GOLDEN.read_text()


def test_everything_is_submitted_in_arrays_of_what_asks_for_the_same(stub, submitter, plan, tiny_spec):
    specs = [tiny_spec(seed=seed) for seed in range(6)] + [tiny_spec("edge_popup")]
    outcome = submitter(sweep={"methods": {"edge_popup": {"minutes": 5}}}).submit(plan(specs))
    # MaxArraySize is 4 here.
    assert [len(submission.jobs) for submission in outcome.submitted] == [4, 2, 1]
    assert [submission.job for submission in outcome.submitted] == ["101", "102", "103"]
    assert not outcome.faults
    assert sum(call.startswith("squeue") for call in stub.calls()) == 0


def test_submitting_again_leaves_queued_and_running_runs_alone(stub, submitter, plan, tiny_spec):
    specs = [tiny_spec(seed=seed) for seed in range(3)]
    submitter().submit(plan(specs))
    stub.set_queue(job101_0="RUNNING", job101_2="FAILED")
    outcome = submitter().submit(plan(specs))
    assert outcome.in_queue == [specs[0].run_id, specs[1].run_id]
    assert [submission.jobs for submission in outcome.submitted] == [[[specs[2].run_id]]]
    assert sum(call.startswith("squeue") for call in stub.calls()) == 1


def test_jobs_that_slurm_holds_after_a_failed_launch_are_released(stub, submitter, plan, tiny_spec):
    specs = [tiny_spec(seed=seed) for seed in range(2)]
    submitter().submit(plan(specs))
    stub.set_queue(job101_1="PENDING:launch failed requeued held")
    outcome = submitter().submit(plan(specs))
    assert outcome.released == ["101_1"]
    assert not outcome.submitted
    assert "scontrol release 101_1" in stub.calls()


def test_a_pupil_waits_for_its_teacher_and_is_blocked_when_it_failed(stub, submitter, plan, teacher_and_pupil):
    teacher, pupil = teacher_and_pupil
    submitter().submit(plan([pupil]))
    assert "#SBATCH --dependency=afterok:101_0" in (stub.folder / "script-102").read_text()
    (stub.folder / "queue").write_text("")
    folder = RunFolder(submitter().results, teacher.run_id)
    folder.failure_file.write_text('{"reason": "nan", "message": "nothing"}')
    outcome = submitter().submit(plan([pupil]))
    assert outcome.blocked == [pupil.run_id]
    assert not outcome.submitted
    retried = submitter().submit(plan([pupil], retry_failed=True))
    assert len(retried.submitted) == 2


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_submission_whose_end_nobody_saw_is_found_by_its_name(
    stub, submitter, plan, tiny_spec, how, monkeypatch, tmp_path
):
    (stub.folder / how).touch()
    spec = tiny_spec()
    if how == "hangs":
        monkeypatch.setenv("SUBNETBENCH_SLURM_SECONDS", "1")
        outcome = submitter().submit(plan([spec]))
        assert "did not answer within 1 s" in outcome.faults[0]
    else:
        code = (
            "import sys; sys.path.pop(0)\n"
            "from pathlib import Path\n"
            "from subnetbench.harness.execution.slurm import commands\n"
            "from subnetbench.harness.execution.slurm.ledger import Ledger\n"
            f"ledger = Ledger(Path({str(tmp_path / 'results')!r}))\n"
            "with ledger.lock() as lock:\n"
            f"    submission = ledger.new('test', [[{spec.run_id!r}]])\n"
            "    ledger.write(submission)\n"
            "    script = Path('script.sh')\n"
            "    script.write_text(f'#SBATCH --job-name={submission.name}\\n#SBATCH --array=0-0%1\\n')\n"
            "    submission.job = commands.submit(str(script), keep_open=(lock,))\n"
        )
        died = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, env={**os.environ})
        assert died.returncode == -9
    (stub.folder / how).unlink()
    (written,) = Ledger(tmp_path / "results").read()
    assert (written.state, written.job) == ("submitting", "")
    outcome = submitter().submit(plan([spec]))
    assert outcome.in_queue == [spec.run_id]
    assert not outcome.submitted
    (settled,) = Ledger(tmp_path / "results").read()
    assert (settled.state, settled.job) == ("submitted", "101")


def test_a_submission_that_never_arrived_is_written_off(stub, submitter, plan, tiny_spec, tmp_path):
    ledger = Ledger(tmp_path / "results")
    with ledger.lock():
        lost = ledger.new("test", [[tiny_spec().run_id]])
        ledger.write(lost)
    outcome = submitter().submit(plan([tiny_spec()]))
    assert len(outcome.submitted) == 1
    assert [submission.state for submission in ledger.read()] == ["lost", "submitted"]


def test_a_submission_under_way_on_another_machine_is_not_repeated(stub, submitter, plan, tiny_spec, tmp_path):
    ledger = Ledger(tmp_path / "results")
    with ledger.lock():
        ledger.write(replace(ledger.new("test", [[tiny_spec().run_id]]), host="elsewhere"))
    with pytest.raises(commands.SchedulerError, match="is not known yet"):
        submitter().submit(plan([tiny_spec()]))
    assert not any(call.startswith("sbatch") for call in stub.calls())


def test_a_refusal_is_reported_and_not_kept(stub, submitter, plan, tiny_spec):
    (stub.folder / "refusal").write_text("sbatch: error: Batch job submission failed: Job violates accounting policy")
    outcome = submitter().submit(plan([tiny_spec()]))
    assert "Job violates accounting policy" in outcome.faults[0]
    (stub.folder / "refusal").unlink()
    assert len(submitter().submit(plan([tiny_spec()])).submitted) == 1


def test_half_finished_runs_do_not_resume_under_other_code_unless_allowed(stub, submitter, plan, tiny_spec):
    spec = tiny_spec()
    submitter().submit(plan([spec]))
    stub.set_queue(job101_0=None)
    changed = submitter()
    changed.code = {**changed.code, "torch": "0.1"}
    assert len(changed.submit(plan([spec])).submitted) == 1
    stub.set_queue(job102_0=None)
    RunFolder(changed.results, spec.run_id).last_checkpoint.touch()
    with pytest.raises(UserError, match=r"torch \(0.1 -> "):
        submitter().submit(plan([spec]))
    assert len(submitter(code_changes="allow").submit(plan([spec])).submitted) == 1


def test_cancelling_writes_it_down_and_needs_one_call(stub, submitter, plan, tiny_spec, tmp_path):
    submitter().submit(plan([tiny_spec(seed=seed) for seed in range(3)]))
    ledger = Ledger(tmp_path / "results")
    assert cancel_all(ledger) == ["101_0", "101_1", "101_2"]
    assert [call for call in stub.calls() if call.startswith("scancel")] == ["scancel --quiet 101"]
    assert ledger.read()[0].state == "cancelled"
    assert not settle(ledger)
    assert len(submitter().submit(plan([tiny_spec()])).submitted) == 1


def test_a_site_that_allows_few_jobs_gets_packed_ones(stub, submitter, plan, tiny_spec):
    specs = [tiny_spec(seed=seed) for seed in range(5)] + [tiny_spec(seed=9, processes=2)]
    outcome = submitter({"max_jobs": 3}).submit(plan(specs))
    assert sum(len(submission.jobs) for submission in outcome.submitted) <= 3
    assert sum(len(job) for submission in outcome.submitted for job in submission.jobs) == 6
    full = submitter({"max_jobs": 3}).submit(plan([tiny_spec(seed=20)]))
    assert full.left_out == [tiny_spec(seed=20).run_id]


def test_a_client_that_hangs_with_its_children_costs_its_time_limit(stub, monkeypatch):
    monkeypatch.setenv("SUBNETBENCH_SLURM_SECONDS", "1")
    (stub.folder / "squeue").write_text("#!/bin/sh\nsleep 100 & sleep 100\n")
    with pytest.raises(commands.SchedulerSilent, match="did not answer within 1 s"):
        commands.queue(["any"])
