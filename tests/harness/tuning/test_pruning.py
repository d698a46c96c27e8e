"""The worker's side of pruning: reports go to the study, and like is compared with like."""

import optuna
import pytest
from optuna.trial import TrialState

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.tuning.optuna_adapter import trial_id
from subnetbench.harness.tuning.pruning import reporting
from subnetbench.harness.tuning.samplers import PRUNERS, Algorithm, make_pruner
from subnetbench.harness.tuning.storage import open_storage

AXIS = ("6 epochs x 1000 images", "concept-disjoint", "8323e4ec")


@pytest.fixture
def trial(tmp_path):
    """Start trials of a study in a journal, each reporting through a connection of its own."""
    url = str(tmp_path / "study.log")
    study = optuna.create_study(study_name="s", storage=open_storage(url), direction="maximize")

    def start(axis=AXIS, pruner=None):
        asked = study.ask()
        callback = reporting(
            url, "s", trial_id(asked), Algorithm.parse(pruner or {"name": "median", "n_startup_trials": 1})
        )
        return asked, callback.load()(callback.options, axis)

    start.study = study
    return start


def test_a_trial_worse_than_the_median_at_the_same_epoch_is_pruned(trial):
    good, report = trial()
    assert [report(epoch, 0.1 * epoch) for epoch in (1, 2, 3)] == [False] * 3
    trial.study.tell(good, 0.3)
    _, report = trial()
    assert report(1, 0.2) is False
    assert report(2, 0.19) is False
    assert report(3, 0.05) is True
    assert trial.study.trials[1].intermediate_values == {1: 0.2, 2: 0.19, 3: 0.05}


@pytest.mark.parametrize("other", [("12 epochs x 1000 images", *AXIS[1:]), (*AXIS[:2], "other data")])
def test_trials_on_another_axis_neither_report_nor_are_pruned(trial, other):
    good, report = trial()
    report(1, 0.9)
    trial.study.tell(good, 0.9)
    _, report = trial(other)
    assert report(1, 0.0) is False
    assert trial.study.trials[1].intermediate_values == {}


def test_a_resumed_trial_may_report_an_epoch_again(trial):
    _, report = trial()
    report(1, 0.1234567890123456789)
    report(1, 0.5)
    assert trial.study.trials[0].intermediate_values == {1: 0.1234567890123456789}


def test_a_storage_out_of_reach_costs_a_report_and_not_the_trial(trial, tmp_path, caplog):
    _, report = trial()
    (tmp_path / "study.log").unlink()
    assert report(1, 0.1) is False
    assert "could not be reported" in caplog.text


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_successive_halving_stops_most_of_many_trials(trial, name):
    options = {"asha": {"min_resource": 1, "reduction_factor": 2}, "hyperband": {"max_resource": 8}}
    pruned = 0
    for number in range(16):
        asked, report = trial(pruner={"name": name, **options[name]})
        quality = 1 / (1 + number)
        stopped = any(report(epoch, quality * epoch) for epoch in range(1, 9))
        trial.study.tell(asked, state=TrialState.PRUNED) if stopped else trial.study.tell(asked, quality)
        pruned += stopped
    assert 8 <= pruned < 16


def test_pruners_by_name():
    assert all(make_pruner(Algorithm(name=name)) is not None for name in PRUNERS)
    with pytest.raises(UserError, match="did you mean 'median'"):
        make_pruner(Algorithm(name="medan"))
    with pytest.raises(UserError, match="pruner"):
        make_pruner(Algorithm.parse({"name": "median", "patience": 3}))
