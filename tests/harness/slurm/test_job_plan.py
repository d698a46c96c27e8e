"""Plan files of jobs, those of earlier versions too, and what a job remembers between its turns."""

import json

import pytest

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.job_memory import MOST_FAILURES, FailureHistory, standstills
from subnetbench.harness.execution.slurm.job_plan import JobPlan, plan_file
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.state import Failure, Heartbeat

OLD_PLAN = """{
 "token": "0123456789", "results": "/out", "jobs": [["a", "b"], ["c"]], "processes": 1, "gpus": 0, "minutes": 60,
 "settings": {"data_root": "/data", "trackers": [], "sweep": "t", "plugins": ["/p.py"]},
 "own_settings": {"c": {"study": "t.m", "trial": 2, "split": "validation"}},
 "code": {"torch": "2.9"}, "code_changes": "allow"
}"""
OLD_SUBMISSION = (
    '{"token": "t", "name": "s-t", "jobs": [["a"], ["b"]], "state": "submitted", "job": "101", "after": [], '
    '"created": 1764000000.0, "host": "login", "code": {"torch": "2.9"}, "detail": ""}'
)


def test_plans_of_earlier_versions_are_read(tmp_path):
    plan_file(tmp_path).write_text(OLD_PLAN)
    plan = JobPlan.read(tmp_path)
    assert (plan.token, str(plan.results), plan.jobs) == ("0123456789", "/out", (("a", "b"), ("c",)))
    assert (plan.processes, plan.gpus, plan.minutes) == (1, 0, 60)
    assert (plan.settings_of("a").sweep, plan.settings_of("a").split) == ("t", "test")
    assert (plan.settings_of("c").sweep, plan.settings_of("c").split, plan.settings_of("c").trial) == (
        "t",
        "validation",
        2,
    )
    assert (plan.code, plan.code_changes) == ({"torch": "2.9"}, "allow")
    plan.write(tmp_path)
    assert JobPlan.read(tmp_path) == plan


@pytest.mark.parametrize("text", ["", "{}", '{"token": "x"}'])
def test_a_plan_that_is_damaged_is_one_message(tmp_path, text):
    plan_file(tmp_path).write_text(text)
    with pytest.raises(SubnetbenchError, match=r"plan.json is missing or damaged"):
        JobPlan.read(tmp_path)


def test_a_misspelt_setting_in_a_plan_names_itself(tmp_path):
    plan_file(tmp_path).write_text(OLD_PLAN.replace('"sweep"', '"sweeep"'))
    with pytest.raises(SubnetbenchError, match=r"settings.sweeep: there is no such setting; did you mean 'sweep'"):
        JobPlan.read(tmp_path)


def test_submissions_of_earlier_and_later_versions_are_read(tmp_path):
    folder = tmp_path / "slurm" / "submissions"
    folder.mkdir(parents=True)
    (folder / "t.json").write_text(OLD_SUBMISSION)
    later = {**json.loads(OLD_SUBMISSION), "token": "u", "new": 1, "created": 1764000001.0}
    (folder / "u.json").write_text(json.dumps(later))
    (folder / "v.json").write_text('{"token": "v"}')
    read = Ledger(tmp_path).read()
    assert [submission.token for submission in read] == ["t", "u"]
    assert read[0].job_of("b") == "101_1"


def test_the_same_failure_twice_is_final_whatever_its_numbers(tmp_path):
    history = FailureHistory(tmp_path, "a")
    assert history.may_try_again(Failure("error", "bad value 3 at 0x7f"))
    assert not history.is_final()
    assert not FailureHistory(tmp_path, "a").may_try_again(Failure("error", "bad value 4 at 0x8a"))
    assert history.is_final()


def test_failures_that_follow_from_the_run_and_too_many_are_final(tmp_path):
    assert not FailureHistory(tmp_path, "a").may_try_again(Failure("nan", "x"))
    assert FailureHistory(tmp_path, "a").is_final()
    many = FailureHistory(tmp_path, "b")
    assert [many.may_try_again(Failure("error", letter)) for letter in "abcde"] == [True] * (MOST_FAILURES - 1) + [
        False
    ]


def test_turns_without_progress_are_counted(tmp_path):
    run = RunFolder(tmp_path, "a")
    run.create("{}")
    file = tmp_path / "position-0.json"
    assert [standstills(file, [run]) for _ in range(3)] == [0, 1, 2]
    run.write_heartbeat(Heartbeat(stage="train", step=3).now())
    assert [standstills(file, [run]) for _ in range(2)] == [0, 1]


def test_settings_in_a_plan_are_whole(tmp_path):
    plan = JobPlan("t", tmp_path, (("a",),), 1, 0, 60, RunSettings(sweep="s"))
    assert RunSettings.from_json(plan.to_json()["settings"]) == plan.settings_of("a")
