"""The trials of searches, study by study."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.compute as pc

from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.keys import higher_is_better
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.report.searches import read_searches
from subnetbench.harness.report.texts import significant
from subnetbench.harness.report.types import Search, Study, Trial

Key = TypeVar("Key")

_COST = "macs_executed"
_SPLITS = ("validation", "test", "")
"""Where the value of a trial is looked for: a search selects on validation data."""


@dataclass(frozen=True)
class _Run:
    """One run of a trial; `at` is its index in the report."""

    at: int
    study: str
    method: str
    dataset: str
    trial: int
    status: str
    finished_at: datetime
    metric: str
    config: configs.Config
    value: float | None
    cost: float | None


def describe_studies(records: RecordSet, trials: np.ndarray, number: dict[int, int]) -> list[Study]:
    """One entry a study: its metric, which way is better, the fields that its trials vary, and the trials.

    `trials` are rows of `records.runs`; `number` says which run of the report each is. Of several runs (seeds) of a
    trial the values are averaged, and the status is that of a finished one or else of the last.
    """
    if not len(trials):
        return []
    names = ("study", "trial", "status", "primary_metric", "config_json", "method", "dataset", "finished_at", "file")
    rows = records.runs.select(names).take(trials).to_pylist()
    values = {name: _values(records, trials, name) for name in (*{row["primary_metric"] for row in rows}, _COST)}
    runs = [
        _Run(
            at=number[record],
            metric=row["primary_metric"],
            config=configs.flatten(row["config_json"]),
            value=values[row["primary_metric"]].get(record),
            cost=values[_COST].get(record),
            **{name: row[name] for name in ("study", "method", "dataset", "trial", "status", "finished_at")},
        )
        for row, record in zip(rows, trials.tolist(), strict=True)
    ]
    by_study = _by(runs, lambda run: (run.study, run.method, run.dataset))
    searches = read_searches({Path(row["file"]) for row in rows})
    return [_study(members, searches.get(name[0])) for name, members in sorted(by_study.items())]


def _study(runs: list[_Run], search: Search | None) -> Study:
    first = runs[0]
    varied = [path for path in configs.differing(run.config for run in runs) if path.startswith("config.")]
    return Study(
        study=first.study,
        method=first.method,
        dataset=first.dataset,
        metric=first.metric,
        better=-1 if higher_is_better(first.metric) is False else 1,
        varied=[path.removeprefix("config.") for path in varied],
        trials=[_trial(trial, own, varied) for trial, own in sorted(_by(runs, lambda run: run.trial).items())],
        search=search,
    )


def _trial(trial: int, runs: list[_Run], varied: list[str]) -> Trial:
    last = max(runs, key=lambda run: (run.status == "finished", run.finished_at))
    return Trial(
        trial=trial,
        status=last.status,
        value=_mean([run.value for run in runs]),
        cost=_mean([run.cost for run in runs]),
        settings=[last.config.get(path) for path in varied],
        run=last.at,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return significant(sum(known) / len(known)) if known else None


def _by(runs: Iterable[_Run], key: Callable[[_Run], Key]) -> dict[Key, list[_Run]]:
    groups: dict[Key, list[_Run]] = {}
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
    return {record: significant(number) for record, (_, number) in found.items()}
