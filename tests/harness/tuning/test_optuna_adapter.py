"""What the adapter uses of Optuna's private API is there, does what it is used for, and is used nowhere else."""

import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from subnetbench.harness.tuning import optuna_adapter
from subnetbench.harness.tuning.optuna_adapter import (
    ProposingStudy,
    contains,
    journal_storage,
    open_trial,
    set_attribute,
    set_constraints,
    set_reports,
    stored_trial,
    trial_id,
)

PACKAGE = Path(optuna_adapter.__file__).parent
PRIVATE = re.compile(r"optuna(\.\w+)*\._|\._(trial_id|storage|study_id|contains|get_trials)\b|ExperimentalWarning")


def require(holder, name):
    assert hasattr(holder, name), (
        f"Optuna {optuna.__version__} has no {type(holder).__name__}.{name} any more: rewrite "
        "harness/tuning/optuna_adapter.py, the only module that uses it, or lower the bound in pyproject.toml"
    )


@pytest.fixture
def study(tmp_path):
    return optuna.create_study(study_name="s", storage=journal_storage(tmp_path / "study.log"), direction="maximize")


def test_the_private_parts_are_there(study):
    from optuna.storages.journal import _storage

    asked = study.ask()
    frozen = study.get_trials()[0]
    require(_storage, "JournalOperation")
    require(_storage.JournalOperation, "SET_TRIAL_STATE_VALUES")
    for holder, name in (
        (asked, "_trial_id"),
        (frozen, "_trial_id"),
        (study, "_storage"),
        (study, "_get_trials"),
        (FloatDistribution(0, 1), "_contains"),
    ):
        require(holder, name)
    for name in ("get_trial", "set_trial_user_attr", "set_trial_intermediate_value"):
        require(study._storage, name)


def test_a_missing_part_is_named_with_the_version():
    with pytest.raises(AssertionError, match=rf"Optuna {re.escape(optuna.__version__)} has no .*\.gone any more"):
        require(object(), "gone")


def test_no_other_module_uses_private_or_experimental_parts():
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if PRIVATE.search(path.read_text()) and path.name != "optuna_adapter.py"
    }
    assert found == set()


def test_a_trial_is_found_again_by_its_id_and_written_to(study):
    asked = study.ask()
    x = asked.suggest_float("x", 0, 1)
    frozen = stored_trial(study, trial_id(asked))
    assert (frozen.number, frozen.params) == (asked.number, {"x": x})
    assert open_trial(study, trial_id(frozen)).suggest_float("x", 0, 1) == x
    set_attribute(study, frozen, "reason", {"kind": "nan"})
    set_reports(study, frozen, {1: 0.25, 2: 0.5})
    set_constraints(study, frozen, {"parameters": -1.0})
    study.tell(frozen.number, 0.5)
    (done,) = study.get_trials()
    assert done.user_attrs == {"reason": {"kind": "nan"}}
    assert done.intermediate_values == {1: 0.25, 2: 0.5}
    assert study.best_trial.number == 0


def test_a_trial_beyond_a_constraint_is_not_the_best(study):
    for value, excess in ((0.9, 1.0), (0.5, 0.0)):
        study.ask()
        set_constraints(study, study.get_trials()[-1], {"parameters": excess})
        study.tell(study.get_trials()[-1].number, value)
    assert study.best_trial.number == 1


def test_samplers_see_failed_trials_as_bad_as_the_worst(study):
    seen = []

    class Watching(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study, trial):
            seen.extend(study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
            return super().infer_relative_search_space(study, trial)

    for value in (0.75, 0.25, None):
        study.tell(study.ask(), value, state=None if value else TrialState.FAIL)
    proposing = ProposingStudy(study, Watching(), lambda trial: trial.state == TrialState.FAIL)
    proposing.ask().suggest_float("x", 0, 1)
    assert [trial.value for trial in seen] == [0.75, 0.25, 0.25]
    assert [trial.state for trial in study.get_trials()][2] == TrialState.FAIL


def test_what_a_distribution_contains():
    assert contains(FloatDistribution(0, 1), 1.0)
    assert not contains(FloatDistribution(0, 1), 1.1)
    assert not contains(FloatDistribution(0, 1, step=0.5), 0.3)
    assert contains(IntDistribution(1, 5, step=2), 3)
    assert not contains(IntDistribution(1, 5, step=2), 4)
    assert contains(CategoricalDistribution(["a", None]), None)
    assert not contains(CategoricalDistribution(["a", "b"]), "c")
