"""What is taken from earlier studies teaches the sampler, and nothing else: no pruner, no importance; what is left out is said."""

import json

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from subnetbench.harness.tuning.attributes import WARM, is_comparable, is_own
from subnetbench.harness.tuning.optuna_adapter import PartOfStudy, trial_id
from subnetbench.harness.tuning.pruning import reporting
from subnetbench.harness.tuning.samplers import Algorithm
from subnetbench.harness.tuning.storage import open_storage
from subnetbench.harness.tuning.tables import StudySummary, importances

AXIS = ("6 epochs x 1000 images", "concept-disjoint", "8323e4ec")


def add_earlier(study, values):
    for number, value in enumerate(values):
        study.add_trial(
            create_trial(
                params={"x": value},
                distributions={"x": FloatDistribution(0, 1)},
                values=[value],
                user_attrs={WARM: f"earlier#{number}"},
            )
        )


@pytest.mark.parametrize("imported", [0, 20])
def test_the_start_up_phase_of_the_median_pruner_counts_own_trials(tmp_path, imported):
    """The worse of eight trials are pruned from the sixth on, whatever was taken from an earlier study."""
    url = str(tmp_path / "study.log")
    study = optuna.create_study(study_name="s", storage=open_storage(url), direction="maximize")
    add_earlier(study, [0.9] * imported)
    pruned = []
    for value in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.9, 0.2):
        asked = study.ask()
        callback = reporting(url, "s", trial_id(asked), Algorithm.parse({"name": "median"}))
        report = callback.load()(callback.options, AXIS)
        pruned.append(any(report(epoch, value) for epoch in (1, 2)))
        study.tell(asked, state=TrialState.PRUNED) if pruned[-1] else study.tell(asked, value)
    assert pruned == [False] * 5 + [True, False, True]


@pytest.mark.parametrize("warm", [False, True])
def test_wilcoxon_prunes_beside_trials_of_an_earlier_study(study, tmp_path, warm):
    """The best of the earlier study is better than all of this one, and has no values by seed."""
    study(folder="earlier", entry={"enqueue": [{"x": 0.3, "y": 0.01}]}, budget={"trials": 3}, seeds=[6])
    entry = {"enqueue": [{"x": 0.35, "y": 0.01}, {"x": 1.0, "y": 1.0}, {"x": 0.9, "y": 1.0}]}
    if warm:
        entry["warm_start"] = [str(tmp_path / "earlier" / "study.log")]
    done = study(pruner="wilcoxon", seeds=list(range(8)), entry=entry, budget={"trials": 4}, final_seeds=[])
    pruned = [t.params["x"] for t in done.search.trials(TrialState.PRUNED)]
    assert {0.9, 1.0} <= set(pruned)
    assert all(len(t.intermediate_values) < 7 for t in done.search.trials(TrialState.PRUNED))


def test_importances_are_of_the_studys_own_trials(study, tmp_path):
    study(folder="earlier", budget={"trials": 30}, sampler="random", seed=5)
    entry = {"warm_start": [str(tmp_path / "earlier" / "study.log")]}
    search = study(entry=entry, budget={"trials": 12}, sampler="random").search
    own = optuna.create_study(direction="maximize")
    own.add_trials(search.trials(TrialState.COMPLETE))
    assert len(search.study.trials) == 30 + 12
    assert importances(search)["top1"] == pytest.approx(optuna.importance.get_param_importances(own))
    assert importances(search)["top1"] != pytest.approx(optuna.importance.get_param_importances(search.study))


def test_the_best_outside_a_narrowed_space_is_named(study, tmp_path):
    first = [{"x": 0.3, "y": 0.01}, {"x": 0.9, "y": 0.01}, {"x": 0.8, "y": 0.02}]
    earlier = study(folder="earlier", entry={"enqueue": first}, budget={"trials": 3}).search
    assert earlier.best()[0].number == 0
    entry = {"warm_start": [str(tmp_path / "earlier" / "study.log")], "space": {"x": {"uniform": [0.7, 1.0]}}}
    search = study(entry=entry, budget={"trials": 2}).search
    left_out, best = search.notes[:2]
    assert "1 of 3 completed trials of t.sleeping are left out" in left_out
    assert "(x outside: 1)" in left_out
    assert "the best of t.sleeping, trial 0 (0.99), is left out (x = 0.3 is outside 0.7 to 1.0)" in best
    assert "trial 2 (0.86), the best that fits, is tried first" in best
    assert search.trials()[0].params == {"x": 0.8, "y": 0.02, "mode": "a"}
    assert StudySummary.of(search).notes == search.notes
    again = study(entry=entry, budget={"trials": 2}).search
    assert again.notes == search.notes


def test_why_trials_do_not_fit(study, tmp_path):
    study(folder="earlier", budget={"trials": 4})
    warm = {"warm_start": [str(tmp_path / "earlier" / "study.log")]}
    fixed = study(folder="fixed", entry={**warm, "space": {"y": "fixed"}}, budget={"trials": 1}).search
    assert "4 of 4" in fixed.notes[0]
    assert "(y is not searched here: 4)" in fixed.notes[0]
    assert fixed.notes[1].endswith("none of its trials fits")
    more = study(
        folder="more",
        entry={**warm, "space": {"size": {"choice": [1, 2]}}},
        budget={"trials": 1},
        objectives=["quality"],
        constraints=[{"metric": "parameters", "at_most": 10000}],
    ).search
    assert "(size was not searched there: 4)" in more.notes[0]
    whole = study(folder="whole", entry=warm, budget={"trials": 12}).search
    assert whole.notes == []


def test_nothing_but_own_trials_is_seen_and_the_best_of_them():
    study = optuna.create_study(direction="minimize")
    add_earlier(study, [0.1, 0.2])
    with pytest.raises(ValueError, match="no trial is completed"):
        _ = PartOfStudy(study, is_own).best_trial
    for value in (0.5, 0.4):
        study.tell(study.ask(), value)
    seen = PartOfStudy(study, is_own)
    assert [t.value for t in seen.get_trials()] == [0.5, 0.4]
    assert seen.best_trial.value == 0.4
    assert study.best_trial.value == 0.1
    assert not any(is_comparable(trial) for trial in study.get_trials())
    study.ask()
    assert is_comparable(study.get_trials()[-1])


def test_a_sampler_that_learns_nothing_from_added_trials_says_so(study, tmp_path):
    study(folder="earlier", budget={"trials": 4})
    entry = {"warm_start": [str(tmp_path / "earlier" / "study.log")]}
    search = study(entry=entry, sampler="random", budget={"trials": 2}).search
    assert search.notes == [
        "sampler random learns nothing from the 4 trials of the warm start; only the best of them is tried first"
    ]
    json.dumps(StudySummary.of(search).notes)
