"""Tuning files: YAML with what is searched, for how much, and what follows. One entry, one study.

name: fair_classification
budget: {trials: 20}             # or {device_hours: 0.5}; the same for every entry
seeds: [0]                       # of each trial
final_seeds: [101, 102, 103]     # of the retrained best configuration and of the defaults
defaults: {dataset: emoji, config: {epochs: 6}}
methods:
  - method: dense
  - method: edge_popup
    space: {lr: {log: [0.01, 1]}, momentum: {uniform: [0.5, 0.99]}}
    enqueue: [{}, {lr: 0.1}]     # tried first; {} is the default configuration
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from subnetbench.harness.core.config import Config, UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.sweep_file import read_mapping
from subnetbench.harness.tuning.build_space import SpaceEntry, space_entries
from subnetbench.harness.tuning.objectives import Constraint, Objective, as_constraint, as_objective
from subnetbench.harness.tuning.samplers import Algorithm

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
EPOCH_PRUNERS = ("median", "hyperband", "asha")
_MERGED = ("config", "data", "compute", "inputs", "space")
_REPLACED = ("method", "dataset", "task", "enqueue", "warm_start", "inputs_follow")


class Budget(Config):
    """What every study of a file may spend: a number of trials, or device hours (processes x hours of its runs)."""

    trials: Annotated[int | None, Field(ge=1, description="completed and pruned trials, not failed ones")] = None
    device_hours: Annotated[float | None, Field(gt=0, description="hours of GPUs, or of CPU processes")] = None

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if (self.trials is None) == (self.device_hours is None):
            raise ValueError("give either trials or device_hours")
        return self

    def __str__(self) -> str:
        return f"{self.trials} trials" if self.trials else f"{self.device_hours:g} device hours"


class StudyEntry(Config):
    """One study, or the `defaults` of all."""

    method: str | None = None
    dataset: str | None = None
    task: str | None = None
    label: Annotated[str | None, Field(pattern=NAME, description="name of the study [default: the method]")] = None
    config: UserValues = Field(default_factory=dict)
    data: UserValues = Field(default_factory=dict)
    compute: UserValues = Field(default_factory=dict)
    inputs: UserValues = Field(default_factory=dict)
    inputs_follow: Annotated[
        bool,
        Field(description="an input that is not named follows each trial's config, instead of the fixed fields alone"),
    ] = False
    space: Annotated[dict[str, SpaceEntry], Field(description="field: space, `default` or `fixed`")] = Field(
        default_factory=dict
    )
    enqueue: Annotated[list[UserValues], Field(description="configurations that are tried first")] = Field(
        default_factory=list
    )
    warm_start: Annotated[list[str], Field(description="earlier studies: STORAGE, or STORAGE#STUDY")] = Field(
        default_factory=list
    )

    @field_validator("space", mode="before")
    @classmethod
    def _space(cls, value: Any) -> Any:
        return space_entries(value) if isinstance(value, dict) else value


class TuningFile(Config):
    """A tuning file as written."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str = ""
    results: str | None = None
    seed: Annotated[int, Field(ge=0, description="decides all proposals")] = 0
    budget: Budget
    workers: Annotated[int | None, Field(ge=1, description="trials at a time")] = None
    seeds: Annotated[list[int], Field(min_length=1, description="run seeds of each trial")] = Field(
        default_factory=lambda: [0]
    )
    final_seeds: Annotated[
        list[int], Field(description="fresh seeds for the best configuration; none: no final runs")
    ] = Field(default_factory=lambda: [101, 102, 103, 104, 105])
    default_rows: Annotated[bool, Field(description="run the default configuration with the final seeds too")] = True
    objectives: list[Objective] = Field(default_factory=lambda: [Objective(metric="quality")], min_length=1)
    constraints: list[Constraint] = Field(default_factory=list)
    sampler: Algorithm = Algorithm(name="tpe")
    pruner: Algorithm = Algorithm(name="none")
    retries: Annotated[int, Field(ge=0, description="new tries of a trial whose processes died")] = 1
    max_failed: Annotated[int | None, Field(ge=1, description="failed trials that end a study")] = None
    defaults: StudyEntry = Field(default_factory=lambda: StudyEntry())
    methods: list[StudyEntry] = Field(min_length=1)
    resources: Annotated[UserValues, Field(description="what the jobs of trials ask for on a cluster")] = Field(
        default_factory=dict
    )
    driver: Annotated[UserValues, Field(description="what the driver's job asks for on a cluster")] = Field(
        default_factory=dict
    )

    @field_validator("objectives", mode="before")
    @classmethod
    def _objectives(cls, value: Any) -> Any:
        return [as_objective(item) for item in value] if isinstance(value, list) else value

    @field_validator("constraints", mode="before")
    @classmethod
    def _constraints(cls, value: Any) -> Any:
        return [as_constraint(item) for item in value] if isinstance(value, list) else value

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "TuningFile":
        pruner = self.pruner.name
        if len(self.objectives) > 1 and pruner != "none":
            raise ValueError("pruner: there is none for several objectives")
        if pruner in EPOCH_PRUNERS and len(self.seeds) > 1:
            raise ValueError("pruner: with several seeds a trial, use wilcoxon, which compares seeds")
        if pruner == "wilcoxon" and len(self.seeds) < 2:
            raise ValueError("pruner: wilcoxon compares seeds, so a trial needs several")
        if len(self.objectives) > 1 and self.sampler.name == "cmaes":
            raise ValueError("sampler: cmaes is for one objective")
        if shared := set(self.seeds) & set(self.final_seeds):
            raise ValueError(f"final_seeds: must be fresh, but trials use {sorted(shared)} too")
        return self

    @property
    def operating_points(self) -> bool:
        """Whether fields that move along the cost axis may be searched."""
        return bool(self.constraints) or any(
            objective.is_cost or objective.metric == "cost" for objective in self.objectives
        )

    def entries(self) -> list[StudyEntry]:
        """The studies with defaults filled in and labels set. Raises `UserError` for what is missing or twice there."""
        found: dict[str, StudyEntry] = {}
        for number, entry in enumerate(self.methods):
            merged = {name: {**getattr(self.defaults, name), **getattr(entry, name)} for name in _MERGED}
            single = {name: getattr(entry, name) or getattr(self.defaults, name) for name in _REPLACED}
            for name in ("method", "dataset"):
                if single[name] is None:
                    raise UserError("must be given here or in defaults", field=f"methods[{number}].{name}")
            label = entry.label or str(single["method"])
            if label in found:
                raise UserError("is there twice; give one of them a label", field="methods", value=label)
            found[label] = entry.model_copy(update={**merged, **single, "label": label})
        return list(found.values())


def read_tuning_file(path: Path) -> TuningFile:
    """Parse a tuning file. Raises `UserError` naming where the first fault is."""
    return TuningFile.parse(read_mapping(path, "`name`, `budget` and `methods`"), where=str(path))
