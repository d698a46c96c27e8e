"""Trials as jobs, against stub clients: what is submitted, what is found again, what the study learns."""

import itertools
import json
import time
from types import SimpleNamespace

import pytest

from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.execution.slurm.settle import cancel_all
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.tuning.attributes import REASON, RETRY_OF
from subnetbench.harness.tuning.driver import Driver
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.slurm import trials as slurm_trials
from subnetbench.harness.tuning.slurm.submit import slurm_launcher
from subnetbench.harness.tuning.storage import open_storage


@pytest.fixture
def study(out, jobs_of, tuning_file):
    """Search with trials that are jobs; `rounds` is how often the launcher may look before the driver is stopped."""

    def run(ends=lambda spec: "finished", *, rounds=200, before=lambda left: None, code_changes="refuse", **fields):
        content = tuning_file(**fields)
        trials = out / "trials"
        trials.mkdir(parents=True, exist_ok=True)
        jobs = jobs_of(trials, ends=ends)
        said, left = [], rounds

        def tick():
            nonlocal left
            left -= 1
            before(left)
            if left < 0:
                raise KeyboardInterrupt
            jobs.work()

        storage = str(out / "study.log")
        search = Search(content, content.entries()[0], open_storage(storage), storage, trials)
        settings = RunSettings(data_root=out, trackers=(), sweep="t")
        make = slurm_launcher(content, Cluster(), code_changes, slurm_trials.Hooks(tick=tick, progress=said.append))
        complete = Driver([search], make(trials, settings), 3).run()
        return SimpleNamespace(search=search, jobs=jobs, said=said, complete=complete, ledger=Ledger(trials))

    return run


def every_fourth_time():
    """A job ends when it is looked at for the fourth time, more or less."""
    looks = itertools.count(1)
    return lambda spec: None if next(looks) % 4 else "finished"


def states(search):
    return [trial.state.name for trial in search.trials()]


def submitted_runs(ledger):
    return [
        run for submission in ledger.read() if submission.state != "refused" for run, _ in submission.jobs_of_runs()
    ]


def test_each_trial_is_a_job_and_is_submitted_once(study, stub):
    done = study(every_fourth_time())
    assert done.complete
    assert states(done.search) == ["COMPLETE"] * 6
    assert sorted(submitted_runs(done.ledger)) == sorted(done.jobs.done)
    assert len(set(done.jobs.done)) == 6
    scripts = [path.read_text() for path in stub.folder.glob("script-*")]
    assert all("#SBATCH --cpus-per-task=1" in script for script in scripts)
    # What was seen to end is not asked for any more: a squeue names what is under way, not the whole study.
    asked = [call.split("--name=")[1].split()[0].count("t-") for call in stub.calls() if call.startswith("squeue")]
    assert max(asked) <= 3


def test_a_job_knows_where_its_trial_reports_and_what_it_is_scored_on(study, out):
    done = study(pruner="median", entry={"method": "sleeping_pupil"})
    plans = [json.loads(path.read_text()) for path in done.ledger.folder.glob("jobs/*/plan.json")]
    own = {run_id: settings for plan in plans for run_id, settings in plan["own_settings"].items()}
    teacher = done.jobs.done[0]
    assert own[teacher]["callback"] is None
    given = [settings for run_id, settings in own.items() if run_id != teacher]
    assert sorted(settings["trial"] for settings in given) == list(range(6))
    assert {settings["callback"]["options"]["storage"] for settings in given} == {str(out / "study.log")}
    assert {settings["split"] for settings in own.values()} == {"validation"}


def test_a_driver_that_went_finds_its_trials_again(study):
    first = study(lambda spec: None, rounds=4)
    assert not first.complete
    assert states(first.search) == ["RUNNING"] * 3
    second = study(rounds=200)
    assert states(second.search) == ["COMPLETE"] * 6
    assert len(submitted_runs(second.ledger)) == 6


def test_what_ended_while_no_driver_looked_is_told_and_not_run_again(study, jobs_of):
    first = study(lambda spec: None, rounds=4)
    ends = {
        trial.number: end
        for trial, end in zip(first.search.trials(), ("finished", "failed:nan", "pruned"), strict=True)
    }
    runs = {first.search.spec(t.params, 0).run_id: ends[t.number] for t in first.search.trials()}
    jobs_of(*first.jobs.folders, ends=lambda spec: runs[spec.run_id]).work()
    second = study()
    assert states(second.search)[:3] == ["COMPLETE", "FAIL", "PRUNED"]
    assert second.search.completed() == 6
    assert not set(runs) & set(second.jobs.done)


def test_a_failure_counts_only_when_its_job_is_gone(study, stub):
    """A job tries a failed run again by itself, unless that cannot help."""
    said = iter(["failed:error"])

    def ends(spec):
        if spec.config["x"] == 0.9:
            return next(said, "finished")
        return "finished"

    def requeued(left):
        text = (stub.folder / "queue").read_text() if (stub.folder / "queue").exists() else ""
        (stub.folder / "queue").write_text(text.replace("|FAILED|", "|PENDING|"))

    done = study(ends, before=requeued, entry={"enqueue": [{"x": 0.9}]})
    assert states(done.search) == ["COMPLETE"] * 6
    assert len(submitted_runs(done.ledger)) == 6


def test_a_job_that_vanishes_is_replaced_and_its_trial_goes_on(study):
    vanished = []

    def ends(spec):
        if len(vanished) < 2:
            vanished.append(spec.run_id)
            return "vanishes"
        return "finished"

    done = study(ends)
    assert states(done.search) == ["COMPLETE"] * 6
    assert len(submitted_runs(done.ledger)) == 8
    assert sum("ended without noting why (failed)" in line for line in done.said) == 2


def test_a_run_whose_jobs_always_vanish_is_told_as_failed_and_tried_again_once(study):
    done = study(lambda spec: "vanishes" if spec.config["x"] == 0.9 else "finished", entry={"enqueue": [{"x": 0.9}]})
    failed = [trial for trial in done.search.trials() if trial.state.name == "FAIL"]
    assert [trial.user_attrs[REASON]["kind"] for trial in failed] == ["killed", "killed"]
    assert failed[1].user_attrs[RETRY_OF] == failed[0].number
    assert done.search.completed() == 6
    run_id = done.search.spec(failed[0].params, 0).run_id
    assert submitted_runs(done.ledger).count(run_id) == 2 * slurm_trials.MOST_LOST
    assert list((done.ledger.folder.parent / "records").glob(f"{run_id}*"))


def test_progress_between_two_jobs_that_vanish_is_no_reason_to_give_up(study):
    steps = []

    def ends(spec):
        if len(steps) < 2 * slurm_trials.MOST_LOST:
            steps.append(len(steps))
            progress = {"step": len(steps), "time": time.time(), "seconds": 1.0}
            RunFolder(folder, spec.run_id).progress_file.write_text(json.dumps(progress))
            return "vanishes"
        return "finished"

    folder = study(lambda spec: None, rounds=0).ledger.folder.parent
    done = study(ends, budget={"trials": 1}, workers=1)
    assert states(done.search) == ["COMPLETE"] * len(done.search.trials())


@pytest.mark.parametrize("client", ["squeue", "sbatch"])
def test_a_silent_or_refusing_scheduler_is_waited_for(study, stub, client):
    """It falls ill in the middle, and gets well again."""
    program, well = stub.folder / client, (stub.folder / client).read_text()

    def before(left):
        if left == 195:
            program.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
            program.chmod(0o755)
        if left == 180:
            program.write_text(well)

    done = study(every_fourth_time(), before=before)
    assert states(done.search) == ["COMPLETE"] * 6
    # Said when it fell ill; a call that had nothing to ask for may lie between.
    assert 1 <= sum("out of order; it is tried again" in line for line in done.said) <= 2
    assert len(submitted_runs(done.ledger)) == 6


def test_a_scheduler_that_takes_no_trial_at_all_ends_the_driver(study, stub):
    (stub.folder / "refusal").write_text("sbatch: error: Batch job submission failed: Invalid partition name")
    with pytest.raises(SubnetbenchError, match=r"nothing could be submitted: .*Invalid partition"):
        study()


def test_cancelling_the_jobs_stops_the_driver(study, out):
    def before(left):
        if left == 195:
            cancel_all(Ledger(out / "trials"))

    cancelled = study(lambda spec: None, before=before)
    assert not cancelled.complete
    assert any("cancelled" in line for line in cancelled.said)
    done = study()
    assert states(done.search) == ["COMPLETE"] * 6
    assert len(submitted_runs(done.ledger)) == 9


def test_trials_that_refused_to_begin_under_other_code_are_not_told_as_failed(study):
    with pytest.raises(UserError, match="--code-changes allow"):
        study(lambda spec: "failed:code-changed")
    done = study()
    assert states(done.search) == ["COMPLETE"] * 6


def test_a_pupil_is_submitted_when_its_teacher_is_finished(study):
    done = study(entry={"method": "sleeping_pupil"})
    assert done.jobs.done[0] == resolve("sleeping", "blank", config={"x": 0.77}).run_id
    assert states(done.search) == ["COMPLETE"] * 6
    assert len(done.jobs.done) == 7


def test_trials_whose_teacher_fails_are_blocked(study):
    broken = study(lambda spec: "failed:nan", entry={"method": "sleeping_pupil"}, max_failed=3)
    assert "trials failed" in broken.search.stopped
    assert len(broken.jobs.done) == 1
    assert {trial.user_attrs[REASON]["kind"] for trial in broken.search.trials()} == {"nan"}
