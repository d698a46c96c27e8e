"""Search spaces: fields of a config with distributions, and how the values of a study stand for them."""

import json
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from subnetbench.harness.core.config import MethodConfig, UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.tuning.optuna_adapter import contains

GRID_LIMIT = 10_000

Label = bool | int | float | str | None
"""What a study stores of a value."""


@dataclass(frozen=True)
class Dimension:
    """One searched field. `choices` are the values that a categorical distribution's labels stand for."""

    name: str
    distribution: BaseDistribution
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def active(self, config: UserValues) -> bool:
        """Whether the field is searched, given the other fields."""
        return all(config.get(field) in values for field, values in self.when)

    def label(self, value: object) -> Any:
        """What stands for a config value in the study."""
        return label_of(value) if self.choices else value

    def value(self, label: Label) -> Any:
        """The config value that the study's label stands for; numbers are passed on bit for bit."""
        if not self.choices:
            return label
        return next(value for value in self.choices if label_of(value) == label)

    def contains(self, label: object) -> bool:
        """Whether a label lies inside the space."""
        return contains(self.distribution, label)

    @property
    def words(self) -> str:
        """Its values, for messages: `0.001 to 1.0`, or the choices."""
        distribution = self.distribution
        if isinstance(distribution, FloatDistribution | IntDistribution):
            return f"{distribution.low} to {distribution.high}"
        return ", ".join(map(str, self.choices))

    def grid(self) -> list[Label]:
        """All labels. Raises `UserError` when there is no end of them."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        if isinstance(distribution, IntDistribution) and not distribution.log:
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            steps = round((distribution.high - distribution.low) / distribution.step)
            return [distribution.low + i * distribution.step for i in range(steps + 1)]
        raise UserError("a grid needs choices, integers or a step", field=f"space.{self.name}")


@dataclass(frozen=True)
class Space:
    """The searched fields of one study, in the order in which they are proposed, and the fields that are fixed."""

    method: str
    config_class: type[MethodConfig]
    fixed: UserValues
    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are searched."""
        return tuple(dimension.name for dimension in self.dimensions)

    def propose(self, trial: Trial) -> UserValues:
        """The config of a trial. Asked again for the same trial, it gives the same."""
        config = dict(self.known())
        values: dict[str, object] = {}
        for dimension in self.dimensions:
            if dimension.active(config):
                label = _suggest(trial, dimension.name, dimension.distribution)
                config[dimension.name] = values[dimension.name] = dimension.value(label)
        return {**self.fixed, **values}

    def config_of(self, params: UserValues) -> UserValues:
        """The config that a stored trial stands for."""
        searched = {d.name: d.value(params[d.name]) for d in self.dimensions if d.name in params}
        return {**self.fixed, **searched}

    def labels_of(self, config: UserValues, where: str) -> dict[str, Label]:
        """A given configuration as parameters of a trial; fields that it does not name are at their default.

        A default outside the space is left to the sampler. Raises `UserError` for a field that is not searched
        and for a value outside the space.
        """
        by_name = {dimension.name: dimension for dimension in self.dimensions}
        for name, value in config.items():
            if name not in by_name:
                if name in self.config_class.model_fields and self.known().get(name) == value:
                    continue
                raise UserError("is not searched", field=f"{where}.{name}", allowed=", ".join(by_name) or "none")
            if not by_name[name].contains(by_name[name].label(value)):
                allowed = by_name[name].distribution
                raise UserError("lies outside the space", field=f"{where}.{name}", value=value, allowed=allowed)
        wanted = {**self.known(), **config}
        labels: dict[str, Label] = {}
        for dimension in self.dimensions:
            label = dimension.label(wanted.get(dimension.name))
            if dimension.active(wanted) and label is not None and dimension.contains(label):
                labels[dimension.name] = label
        return labels

    def grid(self) -> dict[str, list[Label]]:
        """All values of all dimensions. Raises `UserError` for a space that is conditional, endless or huge."""
        size = 1
        for dimension in self.dimensions:
            if dimension.when:
                raise UserError("a grid cannot be conditional", field=f"space.{dimension.name}.when")
            size *= len(dimension.grid())
        if size > GRID_LIMIT:
            raise UserError(f"the grid has {size} points, more than {GRID_LIMIT}", field="space")
        return {dimension.name: dimension.grid() for dimension in self.dimensions}

    def to_json(self) -> UserValues:
        """The space as plain JSON; two spaces are the same exactly when these are equal."""
        return {
            "fixed": self.fixed,
            "searched": [
                {"field": d.name, "distribution": repr(d.distribution), "when": [[f, list(v)] for f, v in d.when]}
                for d in self.dimensions
            ],
        }

    def known(self) -> UserValues:
        """The config before anything is proposed, defaults written out."""
        return self.config_class.parse(self.fixed).model_dump(mode="json")


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Label:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def label_of(value: object) -> Label:
    """Scalars stand for themselves, lists and mappings for their JSON, which is all that a study can store."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)
