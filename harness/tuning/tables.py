"""The files of a study: tables, a sweep file of the best configurations, and figures."""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.files import write_atomically, write_json
from subnetbench.harness.tuning.attributes import FailureReason, TrialOutcome, is_own, retry_of, same_as
from subnetbench.harness.tuning.optuna_adapter import PartOfStudy
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.shared_inputs import inputs_of
from subnetbench.harness.tuning.tuning_file import TuningFile


def write_study_files(search: Search, folder: Path) -> None:
    """Write `trials.csv`, `history.csv`, `slices.csv`, `importances.json`, `front.csv` (several objectives),
    `summary.json`, and, where matplotlib is installed, figures of the same names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    improved, weights = history(search), importances(search)
    write_table(folder / "trials.csv", trials_frame(search))
    write_table(folder / "history.csv", improved)
    write_table(folder / "slices.csv", slices(search))
    if len(search.objectives) > 1:
        write_table(folder / "front.csv", front(search))
    write_json(folder / "importances.json", weights, indent=1)
    write_atomically(folder / "summary.json", json.dumps(asdict(StudySummary.of(search)), indent=1, default=str))
    try:
        from subnetbench.harness.tuning.figures import draw  # late: matplotlib is an extra
    except ImportError:
        return
    draw(search, improved, weights, folder)


def trials_frame(search: Search) -> pd.DataFrame:
    """One row a trial: number, state, scores, searched fields, seconds of devices, and why it failed or was not run."""
    names, searched = _columns(search)
    columns = ["trial", "state", *names, *searched, "device_seconds", "same_as", "retry_of", "kind", "reason"]
    rows = []
    for trial in search.trials():
        reason = FailureReason.of(trial) or FailureReason("", "")
        rows.append(
            (
                trial.number,
                trial.state.name.lower(),
                *(trial.values if trial.state == TrialState.COMPLETE else [None] * len(names)),
                *(trial.params.get(name) for name in searched),
                sum(TrialOutcome.of(trial).device_seconds.values()),
                same_as(trial),
                retry_of(trial),
                reason.kind,
                reason.message,
            )
        )
    frame = _frame(rows, columns)
    return frame.astype({"trial": int, "device_seconds": float} | dict.fromkeys(names, float))


def history(search: Search) -> pd.DataFrame:
    """Trial, value and best value so far of the completed trials that keep the constraints; one objective only."""
    found = [(t.number, t.values[0]) for t in search.trials(TrialState.COMPLETE) if TrialOutcome.of(t).feasible]
    frame = pd.DataFrame(found if len(search.objectives) == 1 else [], columns=["trial", "value"])
    best = frame["value"].cummax() if search.objectives[0].direction == "maximize" else frame["value"].cummin()
    return frame.assign(best=best)


def slices(search: Search) -> pd.DataFrame:
    """One row for each searched field of each completed trial: its value and the trial's scores."""
    names, searched = _columns(search)
    rows = [
        (name, trial.params[name], trial.number, *trial.values)
        for name in searched
        for trial in search.trials(TrialState.COMPLETE)
        if name in trial.params
    ]
    return _frame(rows, ["field", "value", "trial", *names])


def front(search: Search) -> pd.DataFrame:
    """The best trials: scores and searched fields."""
    names, searched = _columns(search)
    rows = [(trial.number, *trial.values, *(trial.params.get(n) for n in searched)) for trial in search.best()]
    return _frame(rows, ["trial", *names, *searched])


def _columns(search: Search) -> tuple[list[str], list[str]]:
    names = [objective.metric for objective in search.objectives]
    return names, [dimension.name for dimension in search.space.dimensions]


def _frame(rows: list[tuple[Any, ...]], columns: list[str]) -> pd.DataFrame:
    # Without a type of their own, columns with gaps keep whole numbers whole.
    return pd.DataFrame(rows, columns=columns, dtype=object)


def importances(search: Search) -> dict[str, dict[str, float]]:
    """Optuna's importance (PED-ANOVA) of each field for each objective; empty where trials are too few or equal.

    Trials of earlier studies do not count: they are of other spaces, data or budgets.
    """
    own = PartOfStudy(search.study, is_own)
    found: dict[str, dict[str, float]] = {}
    for index, objective in enumerate(search.objectives):

        def target(trial: FrozenTrial, index: int = index) -> float:
            return float(trial.values[index])

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = optuna.importance.get_param_importances(
                    own, target=None if len(search.objectives) == 1 else target
                )
        except (ValueError, RuntimeError):
            values = {}
        found[objective.metric] = {name: float(value) for name, value in values.items()}
    return found


@dataclass(frozen=True)
class BestRow:
    """A best trial: its number, the values of the objectives, and its config."""

    trial: int
    values: list[float]
    config: UserValues


@dataclass(frozen=True)
class StudySummary:
    """The study in one object, `summary.json`: what was spent, what came of it, and the best trials.

    `trials` counts them by state; what the tuning file defines is as it was parsed.
    """

    study: str
    method: str
    dataset: str
    objectives: list[UserValues]
    constraints: list[UserValues]
    space: UserValues
    sampler: UserValues
    pruner: UserValues
    seed: int
    budget: UserValues
    trials: Mapping[str, int]
    device_hours: float
    stopped: str | None
    best: list[BestRow]
    notes: list[str]

    @classmethod
    def of(cls, search: Search) -> "StudySummary":
        file = search.file
        found = Counter(trial.state for trial in search.trials())
        return cls(
            study=search.name,
            method=str(search.entry.method),
            dataset=str(search.entry.dataset),
            objectives=[objective.model_dump() for objective in search.objectives],
            constraints=[constraint.model_dump() for constraint in search.constraints],
            space=search.space.to_json(),
            sampler=file.sampler.model_dump(),
            pruner=file.pruner.model_dump(),
            seed=file.seed,
            budget=file.budget.model_dump(),
            trials={state.name.lower(): found[state] for state in TrialState},
            device_hours=search.device_hours(),
            stopped=search.stopped,
            best=[BestRow(t.number, t.values, search.space.config_of(t.params)) for t in search.best()],
            notes=search.notes,
        )


def write_best_sweep(file: TuningFile, searches: Sequence[Search], path: Path) -> None:
    """The best configurations of all studies as a sweep file; of several objectives the whole front."""
    runs = []
    for search in searches:
        entry = search.entry
        for trial in search.best():
            run = {
                "method": entry.method,
                "dataset": entry.dataset,
                "task": search.default_spec.task,
                "config": search.space.config_of(trial.params),
                "data": entry.data,
                "compute": entry.compute,
                "inputs": inputs_of(entry, search.space.fixed, search.space.config_of(trial.params)),
            }
            runs.append({name: value for name, value in run.items() if value})
    if not runs:
        return
    content = {
        "name": f"{file.name}-best",
        "description": f"Best configurations of the search {file.name}, by validation data.",
        "tuned_by": file.name,
        "seeds": file.final_seeds or file.seeds,
        "runs": runs,
    }
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file whole or not at all."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n"))
