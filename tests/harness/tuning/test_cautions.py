"""Cautions say what samplers and pruners of Optuna really do within a budget: each is held against them."""

import optuna
import pytest
from optuna.trial import TrialState

from subnetbench.harness.method.registry import get_method
from subnetbench.harness.tuning.build_space import build_space, space_entries
from subnetbench.harness.tuning.cautions import cautions
from subnetbench.harness.tuning.samplers import make_pruner, make_sampler
from subnetbench.harness.tuning.tuning_file import TuningFile

GRID = {"x": {"uniform": [0, 1], "step": 0.25}, "y": {"choice": [0.1, 0.2]}, "mode": "fixed"}
NUMBERS = {"mode": "fixed"}


def file_of(**fields):
    return TuningFile.parse({"name": "t", "methods": [{"method": "sleeping", "dataset": "blank"}], **fields})


def space_of(entries=None, fixed=None):
    config = get_method("sleeping").Config
    return build_space("sleeping", config, fixed or {}, space_entries(entries or {}), operating_points=False)


def said(trials, entries=None, fixed=None, taken=0, **fields):
    return list(cautions(file_of(budget={"trials": trials}, **fields), space_of(entries, fixed), taken))


def proposals(file, space, trials, better):
    """What the sampler proposes when `better` says how good x is."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = make_sampler(file.sampler, space, 0, number)
        trial = study.ask()
        space.propose(trial)
        study.tell(trial, better(trial.params["x"]))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize(
    ("sampler", "random"),
    [
        ({"name": "nsga2", "population_size": 8}, 8),
        ({"name": "tpe"}, 10),
        ({"name": "tpe", "n_startup_trials": 4}, 4),
        ({"name": "cmaes", "popsize": 5}, 6),
        ({"name": "gp", "n_startup_trials": 5}, 5),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else str(value),
)
def test_a_budget_that_ends_in_the_random_phase_is_random_search(plugin, sampler, random):
    """Up to the number of trials that the caution names, proposals are the same whatever came of the earlier ones."""
    (text,) = said(random, NUMBERS, sampler=sampler)
    assert f"the budget is {random}" in text
    assert said(random + 1, NUMBERS, sampler=sampler) == []
    file, space = file_of(budget={"trials": 1}, sampler=sampler), space_of(NUMBERS)
    one, other = (proposals(file, space, random + 3, better) for better in (lambda x: x, lambda x: -x))
    assert one[:random] == other[:random]
    assert one != other


def test_nsga2_with_its_own_population(plugin):
    (text,) = said(20, sampler="nsga2")
    assert "first population of 50 trials at random, and the budget is 20: this is random search" in text


def test_trials_of_a_warm_start_count_for_the_start_up_of_tpe(plugin):
    assert said(4, sampler="tpe", taken=6) != []
    assert said(4, sampler="tpe", taken=7) == []


def test_a_grid_larger_than_the_budget_says_how_many_are_never_tried(plugin):
    assert said(10, GRID, sampler="grid") == []
    assert said(7, GRID, sampler="grid") == ["sampler grid has 10 points, and the budget is 7: 3 are never tried"]


def test_cmaes_names_what_it_draws_at_random(plugin):
    assert said(50, sampler="cmaes")[-1].endswith("no conditional fields: mode drawn at random")
    assert said(50, NUMBERS, sampler="cmaes") == []


def test_a_budget_in_device_hours_is_not_judged(plugin):
    file = file_of(budget={"device_hours": 0.01}, sampler="nsga2")
    assert list(cautions(file, space_of())) == []


def test_a_median_pruner_that_never_starts(plugin):
    assert (
        "nothing before 5 trials are completed, and the budget is 5"
        in said(5, NUMBERS, pruner="median", sampler="random")[0]
    )
    assert said(6, NUMBERS, pruner="median", sampler="random") == []
    warmup = {"name": "median", "n_warmup_steps": 4}
    assert (
        "waits for 4 epochs, and a trial has 3" in said(9, NUMBERS, {"epochs": 3}, pruner=warmup, sampler="random")[0]
    )
    assert said(9, NUMBERS, {"epochs": 5}, pruner=warmup, sampler="random") == []


@pytest.mark.parametrize("seeds", range(2, 9))
@pytest.mark.parametrize("options", [{}, {"p_threshold": 0.2}, {"n_startup_steps": 6}], ids=str)
def test_wilcoxon_with_too_few_seeds_never_prunes(plugin, seeds, options):
    """The caution is there exactly where a trial that is worse in every seed is not pruned before its last."""
    pruner = {"name": "wilcoxon", **options}
    file = {"pruner": pruner, "seeds": list(range(seeds)), "final_seeds": [], "sampler": "random"}
    study = optuna.create_study(direction="maximize", pruner=make_pruner(file_of(budget={"trials": 2}, **file).pruner))
    best, worse = study.ask(), None
    for step in range(seeds - 1):
        best.report(0.9 + 0.001 * step, step)
    study.tell(best, 0.9)
    worse = study.ask()
    pruned = False
    for step in range(seeds - 1):
        worse.report(0.1 + 0.002 * step, step)
        pruned = pruned or worse.should_prune()
    study.tell(worse, state=TrialState.FAIL)
    assert bool(said(30, NUMBERS, **file)) is not pruned
