"""What trials hold survives the way through JSON, also as earlier versions wrote it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import optuna
from optuna.trial import TrialState

from subnetbench.harness.tuning.attributes import (
    FailureReason,
    RunTimes,
    TrialOutcome,
    is_own,
    retry_of,
    same_as,
)
from subnetbench.harness.tuning.storage import open_storage


def trial(**attributes):
    return SimpleNamespace(user_attrs=json.loads(json.dumps(attributes)))


def test_an_outcome_comes_back_as_it_was():
    outcome = TrialOutcome({"top1": 0.5}, {"parameters": -2.0}, {"a": 3.0}, (RunTimes("a", 1.0, 2.0),))
    assert TrialOutcome.of(trial(outcome=outcome.to_json())) == outcome
    assert outcome.feasible
    assert not TrialOutcome(excess={"parameters": 0.1}).feasible
    assert TrialOutcome.of(trial()) == TrialOutcome()


def test_outcomes_of_version_0_1_are_read():
    old = {"figures": {"top1": 0.5}, "excess": {}, "device_seconds": {"a": 3.0}, "runs": [["a", 1.0, 2.0]]}
    assert TrialOutcome.of(trial(outcome=old)).values == {"top1": 0.5}


def test_why_a_trial_failed_and_what_it_repeats():
    reason = FailureReason("nan", "the loss is nan")
    assert FailureReason.of(trial(reason=reason.to_json())) == reason
    assert FailureReason.of(trial()) is None
    assert (same_as(trial(same_as=0)), retry_of(trial(retry_of=3)), same_as(trial())) == (0, 3, None)
    assert is_own(trial())
    assert not is_own(trial(warm_start="earlier#1"))


def test_a_study_of_version_0_1_is_read(tmp_path):
    journal = shutil.copy(Path(__file__).parents[2] / "data" / "version_0_1" / "search" / "study.log", tmp_path)
    (name,) = optuna.get_all_study_names(open_storage(journal))
    trials = optuna.load_study(study_name=name, storage=open_storage(journal)).get_trials()
    done = [each for each in trials if each.state == TrialState.COMPLETE]
    assert done
    for each in done:
        outcome = TrialOutcome.of(each)
        assert list(outcome.values.values()) == each.values
        assert all(run.ended >= run.started for run in outcome.runs)
        assert sum(outcome.device_seconds.values()) > 0
