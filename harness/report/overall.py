"""The comparison over data sets of a report: one for each task that has several, of the rows that the report shows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.entrants import entrants_of
from subnetbench.harness.leaderboard.frames import View, view_of
from subnetbench.harness.leaderboard.overall import Overall, Settings, compare_entrants
from subnetbench.harness.report.texts import significant

_BY = (("method",), ("method", "variant"), ("method", "variant", "config"), ("method", "variant", "config", "budget"))
"""What makes an entrant: the first of these that tells all rows of a data set apart."""
MOST_ENTRANTS = 40
"""Up to this many are compared in a report: figures with more lines show nothing."""
STATISTICS = {
    "iqm": "interquartile mean of normalised scores",
    "mean": "mean of normalised scores",
    "median": "median over data sets of normalised scores",
    "optimality_gap": "optimality gap (less is better)",
    "mean_rank": "mean rank (less is better)",
    "borda": "Borda count",
    "profile_score": "area under the ratio profile",
}
"""The numbers of an entrant, with their titles, in the order in which they are offered."""


@dataclass(frozen=True)
class Bounded:
    """A number with its interval; None where it is not known."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Profile:
    """The shares of each entrant at some levels, with the bounds of their intervals where they have some."""

    title: str
    levels: tuple[float, ...]
    shares: list[tuple[float | None, ...]]
    low: list[tuple[float | None, ...]]
    high: list[tuple[float | None, ...]]


@dataclass(frozen=True)
class OverTasks:
    """Entrants over the data sets of one task, best first; see `leaderboard.overall.Overall`.

    `statistics` has a title for each name in `estimates`, whose lists go with `entrants`. `improvement` (entrants,
    entrants) is the probability that a run of the row beats one of the column; None where they were not compared.
    """

    task: str
    datasets: list[str]
    entrants: list[str]
    statistics: dict[str, str]
    estimates: dict[str, list[Bounded]]
    improvement: list[list[Bounded | None]]
    profiles: list[Profile]
    notes: list[str]


def describe_overall(board: Board, view: View) -> tuple[list[OverTasks], list[str]]:
    """The comparisons of the tasks with several data sets, and why there is none of some."""
    rows, _ = view_of(board, replace(view, metrics=[]))
    rows = rows[rows["split"] != ""]
    found, notes = [], []
    for task in sorted(rows["task"].unique()):
        if rows.loc[rows["task"] == task, "dataset"].nunique() < 2:
            continue
        where = f"({view.where}) and task == {task!r}" if view.where else f"task == {task!r}"
        try:
            found.append(_described(task, _first(board, View(where=where, splits=view.splits))))
        except UserError as error:
            notes.append(f"Over the data sets of {task}: not compared, because {error}")
    return found, notes


def _first(board: Board, view: View) -> Overall:
    """The comparison by the fewest names that tell all rows apart; what is not on every data set is left out."""
    for by in _BY:
        try:
            found = entrants_of(board, view, by, "drop-methods")
        except UserError as error:
            if error.field == "by" and by != _BY[-1]:
                continue
            raise
        if len(found.names) > MOST_ENTRANTS:
            break
        return compare_entrants(board, found, Settings(by, "optimum", "drop-methods", view))
    raise UserError(f"there are more than {MOST_ENTRANTS} entrants; `subnetbench aggregate` compares them")


def _described(task: str, found: Overall) -> OverTasks:
    lines = found.summary
    names = [name for name in STATISTICS if lines[name].notna().all()]
    bounds = {
        name: [lines.get(f"{name}_{side}", pd.Series(np.nan, lines.index)) for side in ("low", "high")]
        for name in names
    }
    return OverTasks(
        task=task,
        datasets=list(dict.fromkeys(found.scores["dataset"])),
        entrants=found.entrants,
        statistics={name: STATISTICS[name] for name in names},
        estimates={name: [_bounded(*line) for line in zip(lines[name], *bounds[name], strict=True)] for name in names},
        improvement=_matrix(found),
        profiles=list(_profiles(found)),
        notes=found.notes,
    )


def _bounded(value: float, low: float, high: float) -> Bounded:
    return Bounded(significant(value), significant(low), significant(high))


def _matrix(found: Overall) -> list[list[Bounded | None]]:
    pairs = {
        (line.entrant, line.against): _bounded(line.probability, line.low, line.high)  # type: ignore[arg-type]
        for line in found.improvement.itertuples()
    }
    return [[pairs.get((a, b)) for b in found.entrants] for a in found.entrants]


def _profiles(found: Overall) -> Iterator[Profile]:
    titles = {
        "runs": "share of runs above a normalised score",
        "ratio": "share of data sets within a multiple of the least distance to the best possible value",
    }
    for kind, lines in found.profiles.groupby("kind", sort=False):
        own = [lines[lines["entrant"] == name] for name in found.entrants]
        sides = {
            side: [tuple(significant(value) for value in each[side]) for each in own]
            for side in ("share", "low", "high")
        }
        levels = tuple(float(f"{level:.6g}") for level in own[0]["level"])
        yield Profile(titles[str(kind)], levels, sides["share"], sides["low"], sides["high"])
