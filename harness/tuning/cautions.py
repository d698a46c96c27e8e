"""Where a sampler or a pruner cannot do its work: budgets that end before it starts, and fields that it cannot model."""

import math
from collections.abc import Iterator

from optuna.distributions import CategoricalDistribution

from subnetbench.harness.tuning.samplers import Algorithm
from subnetbench.harness.tuning.space import Space
from subnetbench.harness.tuning.tuning_file import TuningFile

_STARTUP = {"tpe": 10, "gp": 10, "cmaes": 1}
"""Default of `n_startup_trials`: completed trials before a sampler uses its model."""
_POPULATION = 50
"""Default of `population_size` of nsga2."""
_LEARNS_FROM_ADDED = ("tpe", "gp")
_MEDIAN_STARTUP = 5
_WILCOXON_LEVEL = 0.1
_WILCOXON_STEPS = 2


def cautions(file: TuningFile, space: Space, taken: int = 0) -> Iterator[str]:
    """What a study of this file cannot do, with the numbers; one sentence each.

    Args:
        file: The tuning file. Of a budget in device hours the number of trials is not known: it is not judged.
        space: What is searched.
        taken: Trials that were taken from earlier studies.
    """
    trials = file.budget.trials
    if trials is not None:
        yield from _of_sampler(file.sampler, space, trials, taken)
        yield from _of_pruner(file.pruner, trials)
    yield from _of_space(file.sampler, space)
    yield from _of_steps(file, space)
    if taken and file.sampler.name not in _LEARNS_FROM_ADDED:
        yield (
            f"sampler {file.sampler.name} learns nothing from the {taken:,} trials of the warm start; only the best of "
            "them is tried first"
        )


def _of_sampler(sampler: Algorithm, space: Space, trials: int, taken: int) -> Iterator[str]:
    name = sampler.name
    if name == "nsga2":
        population = _option(sampler, "population_size", _POPULATION)
        if trials <= population:
            yield (
                f"sampler nsga2 draws its first population of {population:,} trials at random, and the budget is "
                f"{trials:,}: this is random search; give a smaller population_size or several populations"
            )
    elif name == "grid":
        points = math.prod(len(values) for values in space.grid().values())
        if points > trials:
            yield f"sampler grid has {points:,} points, and the budget is {trials:,}: {points - trials:,} are never tried"
    elif name in _STARTUP:
        startup = _option(sampler, "n_startup_trials", _STARTUP[name])
        if name == "cmaes":
            numbers = [d for d in space.dimensions if not isinstance(d.distribution, CategoricalDistribution)]
            # The default of the package cmaes, which Optuna takes.
            population = _option(sampler, "popsize", 4 + math.floor(3 * math.log(max(len(numbers), 1))))
            if numbers and trials <= startup + population:
                yield (
                    f"sampler cmaes has a population of {population:,} after {startup:,} at random, and the budget is "
                    f"{trials:,}: it never learns from a whole population"
                )
        elif trials <= startup - taken:
            yield (
                f"sampler {name} draws its first {startup:,} trials at random, and the budget is {trials:,}: this is "
                "random search; give a smaller n_startup_trials or more trials"
            )


def _of_space(sampler: Algorithm, space: Space) -> Iterator[str]:
    """Fields that CMA-ES draws at random."""
    if sampler.name != "cmaes":
        return
    at_random = [d.name for d in space.dimensions if isinstance(d.distribution, CategoricalDistribution) or d.when]
    if at_random:
        yield f"sampler cmaes models no choices and no conditional fields: {', '.join(at_random)} drawn at random"


def _of_pruner(pruner: Algorithm, trials: int) -> Iterator[str]:
    if pruner.name == "median":
        startup = _option(pruner, "n_startup_trials", _MEDIAN_STARTUP)
        if trials <= startup:
            yield (
                f"pruner median prunes nothing before {startup:,} trials are completed, and the budget is {trials:,}: it "
                "never prunes; give a smaller n_startup_trials"
            )


def _of_steps(file: TuningFile, space: Space) -> Iterator[str]:
    """Pruners that want more epochs or seeds than a trial has."""
    pruner = file.pruner
    epochs = space.known().get("epochs")
    if pruner.name == "median" and isinstance(epochs, int):
        warmup = _option(pruner, "n_warmup_steps", 0)
        if warmup >= epochs:
            yield f"pruner median waits for {warmup:,} epochs, and a trial has {epochs:,}: it never prunes"
    if pruner.name == "wilcoxon":
        compared = len(file.seeds) - 1
        level = float(pruner.options.get("p_threshold", _WILCOXON_LEVEL))
        needed = max(_option(pruner, "n_startup_steps", _WILCOXON_STEPS), 2)
        smallest = 0.5**compared
        if compared < needed or smallest >= level:
            yield (
                f"pruner wilcoxon compares {compared:,} of {len(file.seeds):,} seeds before a trial ends, with p of "
                f"{smallest:.3g} at least; it needs {needed:,} seeds and p below {level:g}: it never prunes"
            )


def _option(algorithm: Algorithm, name: str, default: int) -> int:
    value = algorithm.options.get(name)
    return default if value is None else int(value)
