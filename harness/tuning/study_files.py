"""What a study leaves for people: tables, a sweep file of the best configurations, and figures."""

import csv
import io
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.run_folder import write_json_text
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.study import OUTCOME, REASON, RETRY_OF, SAME_AS, feasible
from subnetbench.harness.tuning.tuning_file import TuningFile


def write_study_files(search: Search, folder: Path) -> None:
    """Write `trials.csv`, `history.csv`, `slices.csv`, `importances.json`, `front.csv` (several objectives),
    `summary.json`, and, where matplotlib is installed, figures of the same names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trials = search.trials()
    names = [objective.metric for objective in search.objectives]
    searched = [dimension.name for dimension in search.space.dimensions]
    write_table(
        folder / "trials.csv",
        ("trial", "state", *names, *searched, "device_seconds", "same_as", "retry_of", "kind", "reason"),
        (_row(trial, len(names), searched) for trial in trials),
    )
    write_table(folder / "history.csv", ("trial", "value", "best"), history(search))
    write_table(
        folder / "slices.csv",
        ("field", "value", "trial", *names),
        (
            (name, trial.params[name], trial.number, *trial.values)
            for name in searched
            for trial in search.trials(TrialState.COMPLETE)
            if name in trial.params
        ),
    )
    if len(names) > 1:
        front = ((trial.number, *trial.values, *(trial.params.get(n, "") for n in searched)) for trial in search.best())
        write_table(folder / "front.csv", ("trial", *names, *searched), front)
    found = importances(search)
    write_json_text(folder / "importances.json", json.dumps(found, indent=1))
    write_json_text(folder / "summary.json", json.dumps(summary(search), indent=1, default=str))
    try:
        from subnetbench.harness.tuning.figures import draw
    except ImportError:
        return
    draw(search, found, folder)


def history(search: Search) -> list[tuple[int, float, float]]:
    """(trial, value, best value so far) of the completed trials that keep the constraints; one objective only."""
    if len(search.objectives) > 1:
        return []
    best_of = max if search.objectives[0].direction == "maximize" else min
    rows: list[tuple[int, float, float]] = []
    for trial in search.trials(TrialState.COMPLETE):
        if feasible(trial):
            value = trial.values[0]
            rows.append((trial.number, value, best_of(value, rows[-1][2]) if rows else value))
    return rows


def importances(search: Search) -> dict[str, dict[str, float]]:
    """Optuna's importance (PED-ANOVA) of each field for each objective; empty where trials are too few or equal."""
    found: dict[str, dict[str, float]] = {}
    for place, objective in enumerate(search.objectives):

        def target(trial: FrozenTrial, place: int = place) -> float:
            return trial.values[place]

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = optuna.importance.get_param_importances(
                    search.study, target=None if len(search.objectives) == 1 else target
                )
        except (ValueError, RuntimeError):
            values = {}
        found[objective.metric] = {name: float(value) for name, value in values.items()}
    return found


def summary(search: Search) -> dict[str, Any]:
    """The study in one mapping: what was spent, what came of it, and the best trials."""
    trials = search.trials()
    states = {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState}
    return {
        "study": search.name,
        "method": search.entry.method,
        "dataset": search.entry.dataset,
        "objectives": [objective.model_dump() for objective in search.objectives],
        "constraints": [constraint.model_dump() for constraint in search.constraints],
        "space": search.space.describe(),
        "sampler": search.file.sampler,
        "pruner": search.file.pruner,
        "seed": search.file.seed,
        "budget": search.file.budget.model_dump(),
        "trials": states,
        "device_hours": search.device_hours(),
        "stopped": search.stopped,
        "best": [
            {"trial": t.number, "values": t.values, "config": search.space.config_of(t.params)} for t in search.best()
        ],
    }


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
                "inputs": entry.inputs,
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
    write_json_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _row(trial: FrozenTrial, objectives: int, searched: Sequence[str]) -> tuple[Any, ...]:
    attributes = trial.user_attrs
    values = trial.values if trial.state == TrialState.COMPLETE else [""] * objectives
    reason = attributes.get(REASON, {})
    return (
        trial.number,
        trial.state.name.lower(),
        *values,
        *(trial.params.get(name, "") for name in searched),
        sum(attributes.get(OUTCOME, {}).get("device_seconds", {}).values()),
        attributes.get(SAME_AS, ""),
        attributes.get(RETRY_OF, ""),
        reason.get("kind", ""),
        reason.get("message", ""),
    )


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_json_text(path, text.getvalue())
