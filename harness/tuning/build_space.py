"""Building a space: from the bounds that a method's config brings, as a tuning file narrows, widens or fixes them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, model_validator

from subnetbench.harness.core.config import Choice, Config, LogUniform, MethodConfig, SearchSpace, UserValues
from subnetbench.harness.core.errors import UserError, nearest
from subnetbench.harness.tuning.space import Dimension, Space, label_of


class DimensionEntry(Config):
    """One searched field as a tuning file writes it: `{log: [0.001, 1]}`, `{uniform: [0, 1], step: 0.1}`,
    `{choice: [a, b]}`; `when` names the values of other fields for which it is searched at all.
    """

    log: Annotated[tuple[float, float] | None, Field(description="uniform in the logarithm")] = None
    uniform: Annotated[tuple[float, float] | None, Field(description="uniform, both ends included")] = None
    choice: Annotated[list[Any] | None, Field(min_length=1, description="one of these")] = None
    step: Annotated[float | None, Field(gt=0, description="grid of `uniform`")] = None
    when: Annotated[UserValues, Field(description="field: value, or a list of values")] = Field(default_factory=dict)

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


SpaceEntry = DimensionEntry | Literal["default", "fixed"]
"""`default`: the space that the config brings; `fixed`: its default value, not searched."""


def space_entries(written: Mapping[str, object]) -> dict[str, SpaceEntry]:
    """The searched fields as a file writes them, parsed. Raises `UserError` naming field and value."""
    return {name: _entry(value, f"space.{name}") for name, value in written.items()}


def _entry(value: object, where: str) -> SpaceEntry:
    if isinstance(value, DimensionEntry) or value == "default" or value == "fixed":
        return value
    if not isinstance(value, Mapping):
        raise UserError("must be a mapping, default or fixed", field=where, value=value)
    return DimensionEntry.parse(dict(value), where=where)


def build_space(
    method: str,
    config_class: type[MethodConfig],
    fixed: Mapping[str, object],
    entries: Mapping[str, SpaceEntry],
    *,
    operating_points: bool,
) -> Space:
    """The space of a method: the defaults of its config, changed by `entries`, without what `fixed` sets.

    Conditions are those of the entry, else those of `config_class.searched_when`; what can never hold is left out.

    Args:
        method: its name, for messages.
        config_class: its config.
        fixed: values of fields that are not searched.
        entries: what is searched instead of the defaults, by field.
        operating_points: whether fields that move along the cost axis may be searched.

    Raises:
        UserError: a field does not exist or cannot be searched; the message names field, value and what is allowed.
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
        raise UserError(f"method {method!r} has nothing to search; name its fields", field="space", value=list(entries))
    result = Space(method, config_class, dict(fixed), tuple(dimensions))
    _check(result)
    return result


def _possible(
    dimensions: Sequence[Dimension], known: Mapping[str, object], entries: Mapping[str, SpaceEntry]
) -> list[Dimension]:
    """Without conditions that always hold, and without fields whose conditions never do."""
    searched = {dimension.name: dimension for dimension in dimensions}
    possible: list[Dimension] = []
    for dimension in dimensions:
        when: list[tuple[str, tuple[Any, ...]]] = []
        for field, values in dimension.when:
            other = searched.get(field)
            found = other.choices if other else (known[field],) if field in known else ()
            met = {label_of(value) for value in found} & {label_of(value) for value in values}
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
    entry: SpaceEntry,
    default: SearchSpace | None,
    conditions: Mapping[str, Sequence[Any]],
    annotation: Any,
) -> Dimension:
    where = f"space.{name}"
    parsed = entry if isinstance(entry, DimensionEntry) else DimensionEntry()
    given = parsed.when if "when" in parsed.model_fields_set else conditions
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
    return CategoricalDistribution([label_of(value) for value in values]), tuple(values)


def _check(space: Space) -> None:
    """Both ends of every dimension, and every choice, must be values that the config accepts."""
    for index, dimension in enumerate(space.dimensions):
        earlier = {other.name for other in space.dimensions[:index]}
        later = {other.name for other in space.dimensions[index:]}
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
