"""Samplers and pruners by name. A sampler is made afresh for each trial, seeded by the study's seed and its number.

So nothing of a sampler lives in a process: what is proposed is a function of the seed, the trial's number and what
the study holds, and a driver that was killed proposes what it would have proposed.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from optuna import pruners, samplers
from pydantic import ConfigDict

from subnetbench.harness.core.config import Config, UserValues
from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.tuning.optuna_adapter import experimental
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
T = TypeVar("T")


class Algorithm(Config):
    """A sampler or pruner: `{name: tpe, multivariate: true}`, the options those of Optuna's class."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> UserValues:  # open: each class of Optuna has its own
        return dict(self.model_extra or {})


def trial_seed(seed: int, purpose: str, number: int) -> int:
    """A 32-bit seed for one trial."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{purpose}\x1f{number}".encode()).digest()[:4], "little")


def make_sampler(choice: Algorithm, space: Space, seed: int, number: int) -> samplers.BaseSampler:
    """The sampler that proposes trial `number`. Raises `UserError` for an unknown name or option."""
    name, options = choice.name, choice.options
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


def make_pruner(choice: Algorithm) -> pruners.BasePruner:
    """Raises `UserError` for an unknown name or option."""
    return _make(PRUNERS, choice.name, choice.options, "pruner")


def _make(known: Mapping[str, Callable[..., T]], name: str, options: UserValues, kind: str) -> T:
    if name not in known:
        raise unknown(kind, name, known)
    try:
        with experimental():
            return known[name](**options)
    except (TypeError, ValueError) as error:
        raise UserError(str(error), field=kind, value=dict(options)) from None
    except ImportError as error:
        raise UserError(f"needs a package of the extra `tuning`: {error}", field=kind, value=name) from None
