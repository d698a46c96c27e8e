"""Entrants over several data sets: mean rank, normalised scores, probability of improvement, profiles, Borda count."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd

from subnetbench.harness.core import over_tasks
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.over_tasks import Estimates, Statistic
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.entrants import Entrants, Missing, Task, entrants_of
from subnetbench.harness.leaderboard.frames import View, selection_of
from subnetbench.harness.leaderboard.ranking import rank_rows

Normalisation = Literal["optimum", "best", "none"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
MOST_PAIRS = 12
"""Up to this many entrants all are compared with all; beyond it with the one of the best mean rank."""
SCORES = {
    "mean": over_tasks.mean_score,
    "median": over_tasks.median_score,
    "iqm": over_tasks.interquartile_mean,
    "optimality_gap": over_tasks.optimality_gap,
}
RATIO_LEVELS = np.linspace(1.0, over_tasks.MOST_RATIO, 61)


@dataclass(frozen=True)
class Settings:
    """How entrants are compared: the fields are the arguments of `Leaderboard.aggregate`."""

    by: Sequence[str] = ("method",)
    normalise: Normalisation = "optimum"
    missing: Missing = "refuse"
    view: View = field(default_factory=View)

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise UserError("no such scale", field="normalise", value=self.normalise, allowed=", ".join(NORMALISATIONS))


@dataclass(frozen=True)
class Overall:
    """Entrants over data sets, the best mean rank first; all intervals are over seeds, for the data sets that there are.

    `summary` has a line for each entrant: `entrant`, `seeds` (fewest on a data set), `failed` (runs), `mean_rank`,
    `borda`, `borda_rank`, `profile_score`, and `mean`, `median`, `iqm`, `optimality_gap` of normalised scores, with `_low`
    and `_high` where there are intervals. `scores` has one for each entrant and data set: `metric`, `trivial`, `optimum`,
    `value` (mean over seeds), `normalised`, `rank`, `rank_best`, `rank_worst`, `seeds`, `failed`. `improvement` has a
    line for each ordered pair: the `probability` that a run of `entrant` beats one of `against` on a data set drawn at
    random. `profiles`: of `kind` `runs` the `share` of runs whose normalised score is above `level`, of kind `ratio` the
    share of data sets on which the distance to the best possible value is at most `level` times the least one.
    """

    summary: pd.DataFrame
    scores: pd.DataFrame
    improvement: pd.DataFrame
    profiles: pd.DataFrame
    notes: list[str]
    is_normalised: bool = True
    turned: bool = False
    """Whether scores are not normalised and stand with their sign turned, since lower is better."""

    @property
    def scale(self) -> str:
        """What `mean` and its like are of, in words."""
        return "normalised score" if self.is_normalised else "score with its sign turned" if self.turned else "score"

    @property
    def entrants(self) -> list[str]:
        """The entrants, best first."""
        return self.summary["entrant"].tolist()


def overall(board: Board, settings: Settings | None = None) -> Overall:
    """Compare the entrants of a leaderboard over its data sets; see `Leaderboard.aggregate`."""
    settings = settings or Settings()
    return compare_entrants(board, entrants_of(board, settings.view, settings.by, settings.missing), settings)


def compare_entrants(board: Board, found: Entrants, settings: Settings) -> Overall:
    """The same of entrants that were chosen already."""
    signs = np.array([task.sign for task in found.tasks])[:, None]
    normalised, unit = _normalised(found, settings.normalise)
    order = np.lexsort([-over_tasks.mean_score(normalised), over_tasks.mean_rank(found.values * signs)])
    found = found.of(order, np.arange(len(found.tasks)))
    signed, normalised = found.values * signs, normalised[order]
    statistics: dict[str, Statistic] = dict(SCORES)
    if settings.normalise == "none":  # an optimum of 1 is that of a scale
        statistics["optimality_gap"] = partial(_gap, optimum=found.tasks[0].sign * found.tasks[0].optimum)
    levels = _levels(normalised, scaled=settings.normalise != "none")
    statistics["runs"] = partial(over_tasks.run_profile, levels=levels)
    estimates = over_tasks.stratified_bootstrap(
        normalised, statistics, steps=found.steps / unit, confidence=board.confidence
    )
    same = over_tasks.without_spread(signed, found.steps)
    estimates = {name: _unknown_where(same, each) for name, each in estimates.items()}
    pairs, improved = _improvement(signed, found.steps, board.confidence)
    ranks = _ranks(found, signed, board.confidence)
    distances = _distances(found)
    improvement = pd.DataFrame(
        {
            "entrant": [found.names[a] for a, _ in pairs],
            "against": [found.names[b] for _, b in pairs],
            "probability": improved.value,
            "low": improved.low,
            "high": improved.high,
        }
    )
    return Overall(
        summary=_summary(found, estimates, ranks, distances),
        scores=_scores(found, normalised, ranks),
        improvement=improvement,
        profiles=_profiles(found, estimates["runs"], levels, distances),
        notes=list(_notes(found, settings, board, estimates["iqm"], len(improvement), distances)),
        is_normalised=settings.normalise != "none",
        turned=settings.normalise == "none" and found.tasks[0].sign < 0,
    )


def _unknown_where(same: np.ndarray, each: Estimates) -> Estimates:
    """No bounds for the entrants (entrants,) whose spread is not known."""
    at = same.reshape(-1, *([1] * (each.value.ndim - 1)))
    return Estimates(each.value, np.where(at, np.nan, each.low), np.where(at, np.nan, each.high))


def _normalised(found: Entrants, how: Normalisation) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and the unit (tasks,) of each data set that they are in.

    0 is the trivial baseline, 1 the best possible value or the best entrant's mean of each data set.
    """
    if how == "none":
        if len({(task.metric, task.sign) for task in found.tasks}) > 1:
            names = ", ".join(sorted({task.metric for task in found.tasks}))
            raise UserError(f"scores of several metrics have no common scale: {names}", field="normalise", value=how)
        return found.values * found.tasks[0].sign, np.ones(len(found.tasks))
    low = np.array([task.trivial for task in found.tasks])
    high = np.array([task.optimum for task in found.tasks])
    if how == "best":
        signs = np.array([task.sign for task in found.tasks])
        high = signs * (over_tasks.task_means(found.values) * signs).max(axis=0)
    for task, trivial, best in zip(found.tasks, low, high, strict=True):
        if not np.isfinite([trivial, best]).all() or not (best - trivial) * task.sign > 0:
            reason = (
                "no trivial baseline is recorded"
                if np.isnan(trivial)
                else f"{task.metric} has no best possible value"
                if not np.isfinite(best)
                else f"nothing is better than the trivial baseline {trivial:.4g}"
            )
            raise UserError(f"on {task.name} {reason}", field="normalise", value=how, allowed=", ".join(NORMALISATIONS))
    return np.asarray((found.values - low[:, None]) / (high - low)[:, None]), np.abs(high - low)


def _gap(scores: np.ndarray, optimum: float) -> np.ndarray:
    """The optimality gap, NaN where a metric has no best possible value."""
    return over_tasks.optimality_gap(scores, optimum if np.isfinite(optimum) else np.nan)


def _levels(normalised: np.ndarray, *, scaled: bool) -> np.ndarray:
    """Levels of the run profile: from the least to the largest score, and of a scale 0 to 1 at least."""
    if not scaled:
        return np.linspace(float(np.nanmin(normalised)), float(np.nanmax(normalised)), 51)
    return np.linspace(min(0.0, float(np.nanmin(normalised))), max(1.0, float(np.nanmax(normalised))), 51)


def _improvement(signed: np.ndarray, steps: np.ndarray, confidence: float) -> tuple[list[tuple[int, int]], Estimates]:
    """The ordered pairs that are compared, and the probability that the first of each beats the second."""
    count = len(signed)
    firsts = range(count) if count <= MOST_PAIRS else range(1)
    half = [(a, b) for a in firsts for b in range(a + 1, count)]

    one = over_tasks.improvements(signed, half, steps=steps, confidence=confidence)
    same = over_tasks.without_spread(signed, steps)
    unknown = (one.low == one.high) & np.array([same[a] or same[b] for a, b in half], bool)
    one = Estimates(one.value, np.where(unknown, np.nan, one.low), np.where(unknown, np.nan, one.high))
    value, low, high = (
        np.concatenate(parts)
        for parts in ((one.value, 1 - one.value), (one.low, 1 - one.high), (one.high, 1 - one.low))
    )
    return [*half, *((b, a) for a, b in half)], Estimates(value, low, high)


def _ranks(found: Entrants, signed: np.ndarray, confidence: float) -> np.ndarray:
    """Rank, best and worst rank of each entrant on each task (3, entrants, tasks); all intervals hold together."""
    tasks = len(found.tasks)
    each = []
    for at in range(tasks):
        steps = found.steps[:, at]
        steps = np.where(np.isnan(steps), np.nanmax(steps) if not np.isnan(steps).all() else np.nan, steps)
        level = 1 - (1 - confidence) / tasks
        ranks = rank_rows(signed[:, at], steps, higher_is_better=True, confidence=level)
        own = over_tasks.mean_rank(signed[:, at : at + 1])
        # One seed alone can be ranked by its value, but no interval is known then.
        unknown = ranks.rank == 0
        best, worst = np.where(unknown, 1, ranks.best), np.where(unknown, len(signed), ranks.worst)
        extra = int(unknown.sum())  # rows that took no part in the tests may stand anywhere
        each.append([own, best, np.where(unknown, worst, worst + extra)])
    return np.asarray(each, np.float64).transpose(1, 2, 0)


def _distances(found: Entrants) -> np.ndarray | None:
    """How far means are from the best possible value, (entrants, tasks); None where a metric has none."""
    optimum = np.array([task.optimum for task in found.tasks])
    return np.abs(over_tasks.task_means(found.values) - optimum) if np.isfinite(optimum).all() else None


def _summary(
    found: Entrants, estimates: dict[str, Estimates], ranks: np.ndarray, distances: np.ndarray | None
) -> pd.DataFrame:
    mean, best, worst = ranks.mean(axis=2)
    entrants, tasks = found.counts.shape
    borda = tasks * (entrants - mean)
    columns: dict[str, object] = {
        "entrant": found.names,
        "seeds": found.counts.min(axis=1),
        "failed": found.failed.sum(axis=1),
        "mean_rank": mean,
        "mean_rank_low": best,
        "mean_rank_high": worst,
        "borda": borda,
        "borda_rank": pd.Series(borda).rank(method="min", ascending=False).astype(np.int64),
        "profile_score": np.full(entrants, np.nan) if distances is None else over_tasks.profile_score(distances),
    }
    for name in SCORES:
        columns |= {
            name: estimates[name].value,
            f"{name}_low": estimates[name].low,
            f"{name}_high": estimates[name].high,
        }
    return pd.DataFrame(columns)


def _scores(found: Entrants, normalised: np.ndarray, ranks: np.ndarray) -> pd.DataFrame:
    entrants, tasks = found.counts.shape
    own = {name: [getattr(task, name) for task in found.tasks] * entrants for name in ("metric", "trivial", "optimum")}
    return pd.DataFrame(
        {
            "entrant": np.repeat(np.array(found.names, object), tasks),
            "dataset": [task.name for task in found.tasks] * entrants,
            **own,
            "value": over_tasks.task_means(found.values).ravel(),
            "normalised": over_tasks.task_means(normalised).ravel(),
            "rank": ranks[0].ravel(),
            "rank_best": ranks[1].ravel().astype(np.int64),
            "rank_worst": ranks[2].ravel().astype(np.int64),
            "seeds": found.counts.ravel(),
            "failed": found.failed.ravel(),
        }
    )


def _profiles(found: Entrants, runs: Estimates, levels: np.ndarray, distances: np.ndarray | None) -> pd.DataFrame:
    parts = []
    for at, name in enumerate(found.names):
        bounds = {"share": runs.value[at], "low": runs.low[at], "high": runs.high[at]}
        parts.append(pd.DataFrame({"kind": "runs", "entrant": name, "level": levels, **bounds}))
    if distances is not None:
        shares = over_tasks.ratio_profile(distances, RATIO_LEVELS)
        for share, name in zip(shares, found.names, strict=True):
            bounds = {"share": share, "low": np.nan, "high": np.nan}
            parts.append(pd.DataFrame({"kind": "ratio", "entrant": name, "level": RATIO_LEVELS, **bounds}))
    return pd.concat(parts, ignore_index=True)


def _named(task: Task) -> str:
    words = [task.metric, f"{'higher' if task.sign > 0 else 'lower'} is better"]
    if not np.isnan(task.trivial):
        words.append(f"best trivial baseline {task.baseline} {task.trivial:.4g}".replace("  ", " "))
    return f"{task.name} ({', '.join(words)})"


def _notes(
    found: Entrants, settings: Settings, board: Board, iqm: Estimates, pairs: int, distances: np.ndarray | None
) -> Iterator[str]:
    percent = f"{100 * board.confidence:g} %"
    yield from found.notes
    if (chosen := selection_of(board, settings.view)) is not None:
        yield from chosen.notes
    tasks = ", ".join(_named(task) for task in found.tasks)
    yield f"{len(found.names)} entrants on {len(found.tasks)} data sets: {tasks}."
    yield {
        "optimum": "Normalised scores: 0 is the best trivial baseline of a data set, 1 the best possible value of its metric.",
        "best": "Normalised scores: 0 is the best trivial baseline of a data set, 1 the mean of the best entrant there, as if it "
        "were known exactly; they depend on who takes part.",
        "none": "Scores are not normalised."
        + (" Their sign is turned, so that higher is better." if found.tasks[0].sign < 0 else ""),
    }[settings.normalise]
    if np.isnan(iqm.low).any():
        yield "No intervals of scores: seeds are too few (a data set with one, or two or three on few data sets)."
    else:
        yield (
            f"Intervals at {percent} are over seeds (stratified bootstrap, percentiles expanded for few seeds), for these "
            "data sets, not for others; each holds by itself. That of a mean rank is from the intervals of ranks on each "
            "data set, which hold together."
        )
    if found.counts.min() != found.counts.max():
        yield (
            f"Numbers of seeds differ ({found.counts.min()} to {found.counts.max()}): runs weigh such that all data sets "
            "weigh the same."
        )
    if same := int(over_tasks.without_spread(found.values, found.steps).sum()):
        yield (
            f"{same:,} {'entrant has' if same == 1 else 'entrants have'} the same score with all seeds of a data set whose number of items is not "
            "known: no interval over seeds."
        )
    if failed := int(found.failed.sum()):
        yield f"{failed:,} {'run' if failed == 1 else 'runs'} failed: scores are over those that finished."
    if lost := board.tally.not_finite:
        yield f"{lost:,} {'value is' if lost == 1 else 'values are'} not finite and left out, as if these seeds had not been."
    if len(found.names) > MOST_PAIRS:
        yield f"More than {MOST_PAIRS} entrants: only {found.names[0]} is compared with each of the others ({pairs} pairs)."
    if distances is None:
        yield "No ratio profile: a metric has no best possible value."
    yield from board.records.left_out()
