"""Samplers and pruners by name. A sampler is made afresh for each trial, seeded by the study's seed and its number.

So nothing of a sampler lives in a process: what is proposed is a function of the seed, the trial's number and what
the study holds, and a driver that was killed proposes what it would have proposed.
"""

import copy
import hashlib
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna
from optuna import pruners, samplers
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.errors import UserError, unknown
from subnetbench.harness.tuning.space import Space

SAMPLERS: dict[str, Callable[..., samplers.BaseSampler]] = {
    "tpe": samplers.TPESampler,
    "cmaes": samplers.CmaEsSampler,
    "gp": samplers.GPSampler,
    "random": samplers.RandomSampler,
    "grid": samplers.GridSampler,
    "qmc": samplers.QMCSampler,
    "nsga2": samplers.NSGAIISampler,
}
PRUNERS: dict[str, Callable[..., pruners.BasePruner]] = {
    "none": pruners.NopPruner,
    "median": pruners.MedianPruner,
    "hyperband": pruners.HyperbandPruner,
    "asha": pruners.SuccessiveHalvingPruner,
    "wilcoxon": pruners.WilcoxonPruner,
}
SINGLE_OBJECTIVE = ("cmaes",)
CONSTRAINED = ("tpe", "gp", "nsga2")
"""Samplers that learn from constraints; the others ignore them, and selection alone keeps to them."""

Choice = Mapping[str, Any]
"""`{name: ..., option: value}`, the options those of Optuna's class."""


class ProposingStudy(optuna.Study):
    """A study as samplers see it: a configuration that failed is as bad as the worst that did not.

    Optuna's samplers pass over failed trials, so a region in which everything fails would stay unexplored to them,
    and attract ever more trials. `failed` says which trials failed by their configuration's fault.
    """

    def __init__(
        self, study: optuna.Study, sampler: samplers.BaseSampler, failed: Callable[[FrozenTrial], bool]
    ) -> None:
        super().__init__(study.study_name, study._storage, sampler, study.pruner)
        self._failed = failed

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, None, use_cache)
        finished = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
        if finished:
            ways = [min if direction.name == "MAXIMIZE" else max for direction in self.directions]
            worst = [way(values) for way, values in zip(ways, zip(*finished, strict=True), strict=True)]
            trials = [_as_bad_as(trial, worst) if self._failed(trial) else trial for trial in trials]
        return [trial for trial in trials if states is None or trial.state in states]


def _as_bad_as(trial: FrozenTrial, worst: Sequence[float]) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.state, seen.values = TrialState.COMPLETE, list(worst)
    return seen


def trial_seed(seed: int, purpose: str, number: int) -> int:
    """A 32-bit seed for one trial."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{purpose}\x1f{number}".encode()).digest()[:4], "little")


def make_sampler(choice: Choice, space: Space, seed: int, number: int) -> samplers.BaseSampler:
    """The sampler that proposes trial `number`. Raises `UserError` for an unknown name or option."""
    name, options = _parts(choice, SAMPLERS, "sampler")
    if name == "grid":
        return _make(SAMPLERS, name, {"search_space": space.grid(), "seed": trial_seed(seed, "grid", 0)}, "sampler")
    if name == "qmc":
        # One sequence for the whole study: its points are numbered by the study itself.
        options = {"scramble": True, "warn_asynchronous_seeding": False, **options}
        return _make(SAMPLERS, name, {**options, "seed": trial_seed(seed, "qmc", 0)}, "sampler")
    if name == "tpe" and any(dimension.when for dimension in space.dimensions):
        options = {"group": True, "multivariate": True, **options}
    if name in ("cmaes", "gp"):
        # What these cannot model (choices, for CMA-ES) is drawn at random, from the trial's seed as well.
        independent = samplers.RandomSampler(seed=trial_seed(seed, "independent", number))
        options = {"independent_sampler": independent, "warn_independent_sampling": False, **options}
    return _make(SAMPLERS, name, {**options, "seed": trial_seed(seed, "sampler", number)}, "sampler")


def random_sampler(seed: int, number: int) -> samplers.BaseSampler:
    """Stands in where the chosen sampler would propose again what is known to fail."""
    return samplers.RandomSampler(seed=trial_seed(seed, "instead", number))


def make_pruner(choice: Choice) -> pruners.BasePruner:
    """Raises `UserError` for an unknown name or option."""
    name, options = _parts(choice, PRUNERS, "pruner")
    return _make(PRUNERS, name, options, "pruner")


def _parts(choice: Choice, known: Mapping[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    options = dict(choice)
    name = options.pop("name", None)
    if name not in known:
        raise unknown(kind, str(name), known)
    return name, options


def _make(known: Mapping[str, Callable[..., Any]], name: str, options: Mapping[str, Any], kind: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return known[name](**options)
    except (TypeError, ValueError) as error:
        raise UserError(str(error), field=kind, value=dict(options)) from None
    except ImportError as error:
        raise UserError(f"needs a package of the extra `tuning`: {error}", field=kind, value=name) from None
