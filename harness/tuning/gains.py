"""What tuning brought: tuned minus default on the test set, paired by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.statistics import Comparison, Interval, paired_t, variance_floor
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.tuning.objectives import RunScores
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.tables import write_table

NOT_RUN = "not run"
NO_PAIRS = Comparison(Interval(math.nan, math.nan, math.nan, 0), math.nan, math.nan, "none")


@dataclass(frozen=True)
class Gain:
    """One study: means over `seeds` of the objective on the test set, their difference, its 95 % t interval.

    `seeds` counts the pairs: seeds of which both runs have a value. `default_failed` and `tuned_failed` count the others
    by the configuration whose run has none, `failed` names them with the reason. Without any pair the values are NaN. `low`,
    `high` and `p` are NaN too where seeds cannot tell: one pair, or the same difference for each and records that do not say
    over how many items it was taken.
    """

    study: str
    metric: str
    seeds: int
    default_failed: int
    tuned_failed: int
    failed: str
    default: float
    tuned: float
    difference: float
    low: float
    high: float
    p: float
    trials: int
    device_hours: float


def gains(searches: Sequence[Search], results: Path) -> list[Gain]:
    """Of each study with one objective whose final runs were started, by the records below `results`."""
    found = []
    for search in searches:
        best = search.best()
        if len(search.objectives) > 1 or not best:
            continue
        config = search.space.config_of(best[0].params)
        seeds = search.file.final_seeds
        default, tuned = (
            {seed: _test_value(search, results, chosen, seed) for seed in seeds} for chosen in ({}, config)
        )
        values = {"default": default, "tuned": tuned}
        pairs = [
            (one, other)
            for one, other in zip(default.values(), tuned.values(), strict=True)
            if not isinstance(one, str) and not isinstance(other, str)
        ]
        failed = {name: {s: v for s, v in runs.items() if isinstance(v, str)} for name, runs in values.items()}
        if not pairs and (not search.file.default_rows or all(why == NOT_RUN for why in failed["tuned"].values())):
            continue
        test = _test(pairs) if pairs else NO_PAIRS
        found.append(
            Gain(
                study=search.label,
                metric=search.objectives[0].metric,
                seeds=len(pairs),
                default_failed=len(failed["default"]),
                tuned_failed=len(failed["tuned"]),
                failed="; ".join(f"{name} {s}: {why}" for name, runs in failed.items() for s, why in runs.items()),
                default=fmean(before.value for before, _ in pairs) if pairs else math.nan,
                tuned=fmean(after.value for _, after in pairs) if pairs else math.nan,
                difference=test.difference.mean,
                low=test.difference.low,
                high=test.difference.high,
                p=test.p,
                trials=search.completed(),
                device_hours=search.device_hours(),
            )
        )
    return found


def write_gains(found: Sequence[Gain], path: Path) -> None:
    """Write the gains as a CSV file, one row a study."""
    write_table(path, pd.DataFrame(found, columns=[field.name for field in fields(Gain)]))


@dataclass(frozen=True)
class _Value:
    """The objective of a run on the test set, and the least by which it can change."""

    value: float
    step: float


def _test(pairs: Sequence[tuple[_Value, _Value]]) -> Comparison:
    step = float(np.max([one.step for pair in pairs for one in pair]))  # NaN, if one of them is not known
    differences = [after.value - before.value for before, after in pairs]
    return paired_t(differences, floor=float(variance_floor(step, step)))


def _test_value(search: Search, results: Path, config: UserValues, seed: int) -> _Value | str:
    """The value of a final run, or why there is none."""
    folder = RunFolder(results, search.spec(config, seed).run_id)
    record = folder.record_file()
    if record is None:
        failure = folder.failure()
        return NOT_RUN if failure is None else failure.reason
    scores, wanted = RunScores.read(record), search.objectives[0]
    value = scores.value(wanted, split="test")
    return _Value(value, scores.step(wanted, split="test")) if math.isfinite(value) else "not finite"
