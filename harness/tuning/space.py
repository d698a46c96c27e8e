"""Search spaces: from the bounds that a method's config brings, as a tuning file narrows, widens or fixes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from pydantic import Field, model_validator

from subnetbench.harness.config import Choice, Config, LogUniform, MethodConfig, SearchSpace
from subnetbench.harness.errors import UserError, nearest

GRID_LIMIT = 10_000


class DimensionEntry(Config):
    """One searched field as a tuning file writes it: `{log: [0.001, 1]}`, `{uniform: [0, 1], step: 0.1}`,
    `{choice: [a, b]}`; `when` names the values of other fields for which it is searched at all.
    """

    log: Annotated[tuple[float, float] | None, Field(description="uniform in the logarithm")] = None
    uniform: Annotated[tuple[float, float] | None, Field(description="uniform, both ends included")] = None
    choice: Annotated[list[Any] | None, Field(min_length=1, description="one of these")] = None
    step: Annotated[float | None, Field(gt=0, description="grid of `uniform`")] = None
    when: Annotated[dict[str, Any], Field(description="field: value, or a list of values")] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "DimensionEntry":
        if sum(value is not None for value in (self.log, self.uniform, self.choice)) > 1:
            raise ValueError("give one of log, uniform, choice")
        if self.step is not None and self.uniform is None:
            raise ValueError("step goes with uniform")
        for ends in (self.log, self.uniform):
            if ends is not None and not ends[0] <= ends[1]:
                raise ValueError("the lower end comes first")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError("log needs positive ends")
        return self


@dataclass(frozen=True)
class Dimension:
    """One searched field. `choices` are the values that a categorical distribution's labels stand for."""

    name: str
    distribution: BaseDistribution
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def active(self, config: Mapping[str, Any]) -> bool:
        """Whether the field is searched, given the other fields."""
        return all(config.get(field) in values for field, values in self.when)

    def label(self, value: Any) -> Any:
        """What stands for a config value in the study."""
        return _label(value) if self.choices else value

    def value(self, label: Any) -> Any:
        """The config value that the study's label stands for; numbers are passed on bit for bit."""
        if not self.choices:
            return label
        return next(value for value in self.choices if _label(value) == label)

    def contains(self, label: Any) -> bool:
        try:
            return self.distribution._contains(self.distribution.to_internal_repr(label))
        except ValueError:
            return False

    def grid(self) -> list[Any]:
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
    fixed: dict[str, Any]
    dimensions: tuple[Dimension, ...]

    def propose(self, trial: Trial) -> dict[str, Any]:
        """The config of a trial. Asked again for the same trial, it gives the same."""
        config = self.known()
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.active(config):
                label = _suggest(trial, dimension.name, dimension.distribution)
                config[dimension.name] = values[dimension.name] = dimension.value(label)
        return {**self.fixed, **values}

    def config_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The config that a stored trial stands for."""
        searched = {d.name: d.value(params[d.name]) for d in self.dimensions if d.name in params}
        return {**self.fixed, **searched}

    def labels_of(self, config: Mapping[str, Any], where: str) -> dict[str, Any]:
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
        labels = {}
        for dimension in self.dimensions:
            label = dimension.label(wanted.get(dimension.name))
            if dimension.active(wanted) and label is not None and dimension.contains(label):
                labels[dimension.name] = label
        return labels

    def grid(self) -> dict[str, list[Any]]:
        """All values of all dimensions. Raises `UserError` for a space that is conditional, endless or huge."""
        size = 1
        for dimension in self.dimensions:
            if dimension.when:
                raise UserError("a grid cannot be conditional", field=f"space.{dimension.name}.when")
            size *= len(dimension.grid())
        if size > GRID_LIMIT:
            raise UserError(f"the grid has {size} points, more than {GRID_LIMIT}", field="space")
        return {dimension.name: dimension.grid() for dimension in self.dimensions}

    def describe(self) -> dict[str, Any]:
        """The space as plain JSON; two spaces are the same exactly when these are equal."""
        return {
            "fixed": self.fixed,
            "searched": [
                {"field": d.name, "distribution": repr(d.distribution), "when": [[f, list(v)] for f, v in d.when]}
                for d in self.dimensions
            ],
        }

    def known(self) -> dict[str, Any]:
        """The config before anything is proposed, defaults written out."""
        return self.config_class.parse(self.fixed).model_dump(mode="json")


def build_space(
    method: str,
    config_class: type[MethodConfig],
    fixed: Mapping[str, Any],
    entries: Mapping[str, Any],
    *,
    operating_points: bool,
) -> Space:
    """The space of a method: the defaults of its config, changed by `entries`, without what `fixed` sets.

    `entries` maps a field to a `DimensionEntry`, to `default` (the config's own space) or to `fixed` (its default
    value, not searched). Operating points are searched only when `operating_points` says so. Conditions are those of
    the entry, else those of `config_class.searched_when`; what can never hold is left out. Raises `UserError` naming
    field, value and what is allowed.
    """
    fields = config_class.model_fields
    for name in entries:
        if name not in fields:
            guess = nearest(name, fields)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UserError(f"method {method!r} has no such field{hint}", field=f"space.{name}")
        if name in fixed:
            raise UserError("is fixed by config and searched at once", field=f"space.{name}")
    dimensions = []
    for name in [*(name for name in fields if name not in entries), *entries]:
        space, is_operating_point = config_class.marks(name)
        entry = entries.get(name, "default")
        if entry == "fixed" or name in fixed:
            continue
        if name not in entries and (space is None or is_operating_point):
            continue
        if is_operating_point and not operating_points:
            raise UserError(
                "is an operating point: it is searched only beside a cost objective or under a constraint, "
                "for example objectives: [quality, cost]",
                field=f"space.{name}",
            )
        conditions = config_class.searched_when.get(name, {})
        dimensions.append(_dimension(name, entry, space, conditions, fields[name].annotation))
    dimensions = _possible(dimensions, config_class.parse(dict(fixed)).model_dump(mode="json"), entries)
    # A field comes after those that its condition asks about.
    dimensions.sort(key=lambda dimension: bool(dimension.when))
    if not dimensions:
        raise UserError(f"method {method!r} has nothing to search; name its fields", field="space", value=dict(entries))
    result = Space(method, config_class, dict(fixed), tuple(dimensions))
    _check(result)
    return result


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
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


def _possible(dimensions: Sequence[Dimension], known: Mapping[str, Any], entries: Mapping[str, Any]) -> list[Dimension]:
    """Without conditions that always hold, and without fields whose conditions never do."""
    searched = {dimension.name: dimension for dimension in dimensions}
    possible: list[Dimension] = []
    for dimension in dimensions:
        when: list[tuple[str, tuple[Any, ...]]] = []
        for field, values in dimension.when:
            other = searched.get(field)
            found = other.choices if other else (known[field],) if field in known else ()
            met = {_label(value) for value in found} & {_label(value) for value in values}
            if found and len(met) == len(found) and not (other and other.when):
                continue
            if found and not met:
                if dimension.name in entries:
                    wanted = " or ".join(map(str, values))
                    raise UserError(f"has no effect: {field} is never {wanted}", field=f"space.{dimension.name}")
                break
            when.append((field, values))
        else:
            possible.append(replace(dimension, when=tuple(when)))
    return possible


def _dimension(
    name: str,
    entry: Any,
    default: SearchSpace | None,
    conditions: Mapping[str, Sequence[Any]],
    annotation: Any,
) -> Dimension:
    where = f"space.{name}"
    if entry == "default":
        entry = {}
    if not isinstance(entry, Mapping):
        raise UserError("must be a mapping, default or fixed", field=where, value=entry)
    parsed = DimensionEntry.parse(dict(entry), where=where)
    given = parsed.when if "when" in entry else conditions
    when = tuple((field, tuple(v) if isinstance(v, list | tuple) else (v,)) for field, v in given.items())
    integer = int in (annotation, *get_args(annotation)) and float not in get_args(annotation)
    if parsed.choice is not None:
        distribution, choices = _categorical(parsed.choice)
    elif parsed.log is not None or parsed.uniform is not None:
        low, high = parsed.log or parsed.uniform or (0.0, 0.0)
        distribution, choices = _numbers(low, high, parsed.step, bool(parsed.log), integer, where), ()
    elif isinstance(default, Choice):
        distribution, choices = _categorical(default.values)
    elif default is not None:
        log = isinstance(default, LogUniform)
        distribution, choices = _numbers(default.low, default.high, None, log, integer, where), ()
    else:
        raise UserError(
            "the config brings no space for it",
            field=where,
            allowed="{log: [a, b]}, {uniform: [a, b]}, {choice: [...]}",
        )
    return Dimension(name, distribution, choices, when)


def _numbers(low: float, high: float, step: float | None, log: bool, integer: bool, where: str) -> BaseDistribution:
    if not integer:
        return FloatDistribution(low, high, log=log, step=step)
    if any(number != int(number) for number in (low, high, step or 1)):
        raise UserError("the field is an integer", field=where, value=[low, high, step])
    return IntDistribution(int(low), int(high), log=log, step=int(step or 1))


def _categorical(values: Sequence[Any]) -> tuple[BaseDistribution, tuple[Any, ...]]:
    return CategoricalDistribution([_label(value) for value in values]), tuple(values)


def _label(value: Any) -> Any:
    """Scalars stand for themselves, lists and mappings for their JSON, which is all that a study can store."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)


def _check(space: Space) -> None:
    """Both ends of every dimension, and every choice, must be values that the config accepts."""
    for place, dimension in enumerate(space.dimensions):
        earlier = {other.name for other in space.dimensions[:place]}
        later = {other.name for other in space.dimensions[place:]}
        for field, _ in dimension.when:
            where = f"space.{dimension.name}.when.{field}"
            if field in later or field not in space.config_class.model_fields:
                raise UserError("is no field that is known before", field=where, allowed=", ".join(sorted(earlier)))
        distribution = dimension.distribution
        ends = dimension.choices if dimension.choices else (distribution.low, distribution.high)  # type: ignore[attr-defined]
        condition = {field: values[0] for field, values in dimension.when}
        for value in ends:
            try:
                space.config_class.parse({**space.fixed, **condition, dimension.name: value})
            except UserError as error:
                if str(error.field).removeprefix("config.").split(".")[0] == dimension.name:
                    raise UserError(
                        f"its config does not accept this: {error}", field=f"space.{dimension.name}", value=value
                    ) from None
