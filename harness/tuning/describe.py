"""What is to be searched, as the command line and Python calls describe it: a file, or a method with options."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.tuning.objectives import Constraint, Objective
from subnetbench.harness.tuning.tuning_file import TuningFile, read_tuning_file

FILE_SUFFIXES = (".yaml", ".yml")


class SearchOptions(TypedDict, total=False):
    """What is searched, and for how much. With a tuning file only the first five may be given; they win over it."""

    trials: int | None
    """Target number of completed trials a study; alternatively `device_hours`."""
    device_hours: float | None
    sampler: str | UserValues | None
    """A name (tpe, cmaes, gp, random, grid, qmc, nsga2), or a mapping of `name` and the options of Optuna's class."""
    pruner: str | UserValues | None
    """A name (none, median, hyperband, asha, wilcoxon), or a mapping."""
    seed: int | None
    """Seed of the proposals."""
    objectives: Sequence[str | UserValues | Objective] | None
    """`quality`, `cost`, or metrics [default: quality]."""
    constraints: Sequence[str | UserValues | Constraint] | None
    """Bounds, e.g. `parameters<=100000`."""
    task: str | None
    config: UserValues | None
    """Fields of the method's config that are fixed."""
    space: UserValues | None
    """Spaces of fields, e.g. `{"lr": {"log": [0.001, 1]}}` [default: those that the method's config brings]."""
    data: UserValues | None
    """Fields of the data set's config."""
    compute: UserValues | None
    """Compute of each run, e.g. `{"processes": 2, "device": "cpu"}`."""
    inputs: UserValues | None
    inputs_follow: bool | None
    """Train an input that is not named for each trial's config, instead of one for all [default: one]."""
    enqueue: Sequence[UserValues] | None
    """Configurations to try first."""
    warm_start: Sequence[str] | None
    """Earlier studies to learn from: STORAGE or STORAGE#STUDY."""


_OVER_A_FILE = ("sampler", "pruner", "seed")
_OF_THE_ENTRY = ("task", "config", "data", "compute", "inputs", "inputs_follow", "space", "enqueue", "warm_start")


def describe_tuning(
    file_or_method: TuningFile | Path | str, dataset: str | None = None, *, options: SearchOptions
) -> TuningFile:
    """The tuning file that a call describes.

    Raises:
        UserError: the file cannot be read, an option belongs into the file, or method, data set or budget are missing.
    """
    given = {name: value for name, value in options.items() if value not in (None, False, [], {}, ())}
    unknown = sorted(given.keys() - SearchOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"tune() got an unexpected keyword argument {unknown[0]!r}")
    budget: dict[str, object] = {name: given.pop(name) for name in ("trials", "device_hours") if name in given}
    if isinstance(file_or_method, TuningFile):
        return _changed(file_or_method, budget, given)
    path = Path(file_or_method)
    if dataset is None and (path.suffix in FILE_SUFFIXES or path.exists()):
        return _changed(read_tuning_file(path), budget, given)
    if dataset is None:
        raise UserError(
            "a method needs a data set; a tuning file ends in .yaml", field="DATASET", value=str(file_or_method)
        )
    if not budget:
        raise UserError("needs a budget: --trials or --device-hours", field="--trials")
    entry = {name: given.pop(name) for name in _OF_THE_ENTRY if name in given}
    method = str(file_or_method)
    return TuningFile.parse(
        {
            "name": f"tune-{method}-{dataset}",
            "budget": budget,
            "methods": [{"method": method, "dataset": dataset, **entry}],
            **given,
        },
        where="tuning",
    )


def _changed(content: TuningFile, budget: Mapping[str, object], given: Mapping[str, object]) -> TuningFile:
    for name in given:
        if name not in _OVER_A_FILE:
            raise UserError("belongs into the tuning file", field=name)
    changed = {**({"budget": budget} if budget else {}), **given}
    return TuningFile.parse({**content.model_dump(exclude_unset=True), **changed}) if changed else content
