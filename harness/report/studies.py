"""The trials of searches, study by study."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.board import higher_is_better
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.report.searches import Search, read_searches
from subnetbench.harness.report.texts import significant

Run = dict[str, Any]

_COST = "macs_executed"
_SPLITS = ("validation", "test", "")
"""Where a trial's value is looked for: a search selects on validation data."""


def describe_studies(records: RecordSet, trials: np.ndarray, number: dict[int, int]) -> list[dict[str, Any]]:
    """One entry a study: its metric, which way is better, the fields that its trials vary, and the trials.

    `trials` are places in `records.runs`; `number` says which run of the report each is. A trial has its number,
    status, value (None where it has none), cost in executed MACs where that is known, and its settings; of several
    runs (seeds) of a trial the values are averaged, and the status is that of a finished one or else of the last.
    `search` is what `read_searches` finds of the study, or None.
    """
    if not len(trials):
        return []
    names = ("study", "trial", "status", "primary_metric", "config_json", "method", "dataset", "finished_at", "file")
    runs = records.runs.select(names).take(trials).to_pylist()
    metrics = {run["primary_metric"] for run in runs}
    values = {name: _values(records, trials, name) for name in (*metrics, _COST)}
    for run, place in zip(runs, trials.tolist(), strict=True):
        run |= {"place": number[place], "config": configs.flatten(run["config_json"])}
        run |= {"value": values[run["primary_metric"]].get(place), "cost": values[_COST].get(place)}
    by_study = _by(runs, lambda run: (run["study"], run["method"], run["dataset"]))
    searches = read_searches({Path(run["file"]) for run in runs})
    return [_study(name, members, searches.get(name[0])) for name, members in sorted(by_study.items())]


def _study(name: tuple[str, str, str], runs: list[Run], search: Search | None) -> dict[str, Any]:
    varied = [path for path in configs.differing(run["config"] for run in runs) if path.startswith("config.")]
    metric = runs[0]["primary_metric"]
    return {
        **dict(zip(("study", "method", "dataset"), name, strict=True)),
        "metric": metric,
        "better": -1 if higher_is_better(metric) is False else 1,
        "varied": [path.removeprefix("config.") for path in varied],
        "trials": [_trial(trial, own, varied) for trial, own in sorted(_by(runs, lambda run: run["trial"]).items())],
        "search": search,
    }


def _trial(trial: int, runs: list[Run], varied: list[str]) -> dict[str, Any]:
    last = max(runs, key=lambda run: (run["status"] == "finished", run["finished_at"]))
    means = {}
    for name in ("value", "cost"):
        told = [run[name] for run in runs if run[name] is not None]
        means[name] = significant(sum(told) / len(told)) if told else None
    settings = [last["config"].get(path) for path in varied]
    return {"trial": trial, "status": last["status"], **means, "settings": settings, "run": last["place"]}


def _by(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _values(records: RecordSet, trials: np.ndarray, metric: str) -> dict[int, float | None]:
    """The value of a metric for each of these runs that has one, of the split that the search looked at."""
    scores = records.scores
    scores = scores.filter(pc.equal(scores["metric"], metric))
    run, split = scores["run"].to_numpy(), scores["split"].to_pylist()
    variant, value = scores["variant"].to_pylist(), scores["value"].to_numpy()
    wanted = set(trials.tolist())
    found: dict[int, tuple[int, float]] = {}
    for at in np.flatnonzero(np.isin(run, list(wanted))):
        if variant[at].startswith("trivial") or split[at] not in _SPLITS or not np.isfinite(value[at]):
            continue
        order = _SPLITS.index(split[at])
        if int(run[at]) not in found or order < found[int(run[at])][0]:
            found[int(run[at])] = (order, float(value[at]))
    return {place: significant(number) for place, (_, number) in found.items()}
