"""Typed configs of methods and data sets, and the marks that tuning and listings read from their fields.

A field is a pydantic field with a description and bounds; beside them it may carry marks in `Annotated`:

    sparsity: Annotated[float, Field(ge=0, lt=1, description="fraction removed"), operating_point] = 0.5
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-3, 1.0)] = 0.1
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from subnetbench.harness.core.errors import UserError, nearest

OpenFields = dict[str, Any]
"""Fields as a user wrote them, or of a config that is not known here: open until that config has parsed them."""
UserValues = Mapping[str, Any]
"""The same where it is only read: what a function takes from a user."""


@dataclass(frozen=True)
class Uniform:
    """Default search space: uniform between `low` and `high`, both included; integers for integer fields."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class LogUniform:
    """Default search space: uniform in the logarithm between `low` > 0 and `high`."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low} to {self.high} (log)"


@dataclass(frozen=True)
class Choice:
    """Default search space: one of `values`."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


SearchSpace = Uniform | LogUniform | Choice


@dataclass(frozen=True)
class OperatingPoint:
    """Marks a field that moves along the cost axis (sparsity, capacity, network, image size, epochs).

    A single-objective search keeps it fixed; it is searched only beside a cost objective or a constraint.
    """


operating_point = OperatingPoint()


@dataclass(frozen=True)
class ReadFile:
    """Marks a text field that names a file, or a folder of files, that a run reads beside its data.

    What is in it counts for the run's identity, not only what it is called: with other content it is another run.
    """


read_file = ReadFile()


@dataclass(frozen=True)
class ConfigField:
    """One field of a config, for listings and the documentation; texts are for people, `default` is the value."""

    name: str
    type: str
    default: object
    allowed: str
    search: str | None
    searched_when: Mapping[str, list[object]]
    operating_point: bool
    help: str


class Config(BaseModel):
    """Base of all configs: unknown fields and wrong types are errors, values never change after creation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=False,
    )

    searched_when: ClassVar[dict[str, dict[str, tuple[Any, ...]]]] = {}
    """Fields that mean something only beside certain values of others, as `{"scale": {"loss": ("arcface",)}}`: default
    search spaces leave them out elsewhere. A subclass that adds to it repeats its base's with `**Base.searched_when`.
    """

    @classmethod
    def parse(cls, values: UserValues, *, where: str = "config") -> Self:
        """Validate `values`; the first fault becomes a `UserError` naming field, value and what was allowed."""
        _refuse_truth_values(cls, values, where)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _explain(cls, error, where) from None

    @classmethod
    def marks(cls, name: str) -> tuple[SearchSpace | None, bool]:
        """The default search space of a field, and whether the field is an operating point."""
        metadata = cls.model_fields[name].metadata
        space = next((m for m in metadata if isinstance(m, Uniform | LogUniform | Choice)), None)
        return space, any(isinstance(m, OperatingPoint) for m in metadata)

    def files_read(self) -> dict[str, Path]:
        """The files and folders that the fields marked `read_file` name, by field; they may not exist."""
        marked = [
            name
            for name, info in type(self).model_fields.items()
            if any(isinstance(mark, ReadFile) for mark in info.metadata)
        ]
        return {name: Path(value).expanduser() for name in marked if (value := getattr(self, name))}

    @classmethod
    def describe(cls) -> Iterator[ConfigField]:
        """The fields in order of definition."""
        for name, info in cls.model_fields.items():
            space, is_operating_point = cls.marks(name)
            yield ConfigField(
                name=name,
                type=type_name(info.annotation),
                default=None if info.is_required() else info.get_default(call_default_factory=True),
                allowed=_bounds(info),
                search=None if space is None else str(space),
                searched_when={field: list(values) for field, values in cls.searched_when.get(name, {}).items()},
                operating_point=is_operating_point,
                help=info.description or "",
            )


C = TypeVar("C", bound="Config")


NO_TRAINING = "none of its own"
"""Budget of a run that trains nothing itself."""
EARLY_STOP = "up to"
"""First words of a budget that a run need not use up, for each seed may stop at another epoch."""


class MethodConfig(Config):
    """What can be configured for every method; methods add their own fields and may change these defaults.

    `paper_defaults` replaces defaults under `preset: paper`; what the user says still wins.
    """

    paper_defaults: ClassVar[UserValues] = {}

    preset: Annotated[
        Literal["default", "paper"],
        Field(description="paper: reproduce the published implementation, faults included"),
    ] = "default"
    epochs: Annotated[
        int, Field(ge=0, description="passes over the training split, in each stage"), operating_point
    ] = 10
    batch_size: Annotated[
        int, Field(ge=1, description="samples a step, over all processes and micro-batches together")
    ] = 128
    micro_batch_size: Annotated[
        int | None, Field(ge=1, description="most samples in one forward pass; smaller saves memory")
    ] = None
    limit_steps: Annotated[
        int | None,
        Field(ge=1, description="cut every epoch after this many steps (for trials)"),
        operating_point,
    ] = None
    evaluate_every: Annotated[
        int, Field(ge=0, description="epochs between validations; 0: only at the end of a stage")
    ] = 1
    patience: Annotated[
        int | None,
        Field(ge=1, description="stop a stage after this many validations without a better one"),
    ] = None

    @classmethod
    def searched_fields(cls) -> tuple[str, ...]:
        """The fields that a search may choose by default: those with a search space that are no operating points."""
        marks = {name: cls.marks(name) for name in cls.model_fields}
        return tuple(name for name, (space, is_operating_point) in marks.items() if space and not is_operating_point)

    def installed_files(self) -> Mapping[str, Path]:
        """Files that the method reads and no field names, by what they are for: weights that a library publishes.

        Only those that are on this machine. They are recorded, and a run does not resume with others, but its id is
        the same.
        """
        return {}

    def network_name(self) -> str:
        """What leaderboards call the network; empty for methods that start from finished runs and keep theirs."""
        return str(getattr(self, "network", ""))

    def budget(self, epochs: int, images: int) -> str:
        """What a training of so many epochs over so many images may spend, in words: `16 epochs x 1200 images`."""
        if not epochs:
            return NO_TRAINING
        most = f"{EARLY_STOP} " if self.patience is not None else ""
        steps = f", at most {self.limit_steps} steps each" if self.limit_steps is not None else ""
        return f"{most}{epochs} epochs x {images} images{steps}"

    @model_validator(mode="before")
    @classmethod
    def _use_paper_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "paper":
            return {**cls.paper_defaults, **values}
        return values


class DatasetConfig(Config):
    """What can be configured for every data set; data sets add their own fields."""

    train_size: Annotated[
        int | None,
        Field(ge=1, description="use only this many training images (drawn by split_seed)"),
        operating_point,
    ] = None
    split_seed: Annotated[
        int,
        Field(ge=0, description="draws validation and train_size; not the run's seed, so all runs share it"),
    ] = 0


def _refuse_truth_values(cls: type[Config], values: UserValues, where: str) -> None:
    """Raise `UserError` for `true` where a number belongs: pydantic would take it for 1."""
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        info = cls.model_fields.get(name)
        if isinstance(value, bool) and info is not None:
            kinds = set(_kinds(info.annotation))
            if kinds & {int, float} and not kinds & {bool, Any, object}:
                raise UserError(
                    "must be a number", field=f"{where}.{name}", value=value, allowed=_bounds(info) or "a number"
                )


def _kinds(annotation: Any) -> Iterator[Any]:
    """The plain types that a value of a union or an annotated type may have; those of its items do not count."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    else:
        yield annotation


def type_name(annotation: Any) -> str:
    """A short human name of a field's type."""
    text = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
    return str(text).replace("typing.", "").replace("NoneType", "None")


def _bounds(info: FieldInfo) -> str:
    """The bounds of a field in words, e.g. `>= 0, < 1`."""
    signs = {
        "ge": ">=",
        "gt": ">",
        "le": "<=",
        "lt": "<",
        "min_length": "length >=",
        "max_length": "length <=",
    }
    parts = []
    for constraint in info.metadata:
        for attribute, sign in signs.items():
            value = getattr(constraint, attribute, None)
            if value is not None and not isinstance(constraint, SearchSpace):
                parts.append(f"{sign} {value}")
    if not parts and getattr(info.annotation, "__origin__", None) is Literal:
        parts = [", ".join(map(str, info.annotation.__args__))]  # type: ignore[union-attr]
    return ", ".join(parts)


def _explain(cls: type[Config], error: ValidationError, where: str) -> UserError:
    # A misspelt name explains a missing one, so it comes first.
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda each: each["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in fault["loc"])
    field = f"{where}.{path}" if path else where
    top = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "extra_forbidden":
        guess = nearest(top, cls.model_fields)
        hint = f"; did you mean {guess!r}?" if guess else ""
        return UserError(f"there is no such field{hint}", field=field, allowed=", ".join(cls.model_fields))
    if fault["type"] == "missing":
        return UserError("must be given", field=field)
    allowed = _bounds(cls.model_fields[top]) if top in cls.model_fields else None
    value = fault["input"] if path else None
    return UserError(fault["msg"].removeprefix("Value error, "), field=field, value=value, allowed=allowed or None)
