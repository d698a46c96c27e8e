"""Which config of each method counts when it is chosen on validation scores, and which rows are chosen on test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.leaderboard.attribution import MEASURED_BY
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.configs import differing
from subnetbench.harness.leaderboard.keys import CONTEST, higher_is_better
from subnetbench.harness.leaderboard.spending import ALLOWED

VALIDATION = "validation"
SEARCH_TRIALS = "search_trials"
FAMILY = (*(name for name in CONTEST if name != "split"), "method", "network", ALLOWED, "preset", MEASURED_BY)
"""One config is chosen among those of one method that agree in these, for each variant on offer: among those that were
allowed the same, whatever they spent of it."""
CHOICE = ("chosen_from", "validation")
"""Columns that rows have beside their own where they were chosen."""
_ROW = ("group", "variant", "gallery_variant")
_SHOWN = 6


@dataclass(frozen=True)
class Selection:
    """The rows of the chosen configs, with the columns `chosen_from` (configs) and `validation` (mean of the metric
    that chose), and what a reader must know of the choice."""

    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def choose(board: Board, candidates: pd.DataFrame, shown: pd.DataFrame, within: Sequence[np.ndarray]) -> Selection:
    """Of each method, network, budget, preset and variant the config that is best on validation.

    Best is the mean over seeds of the task's primary metric. Only configs with as many seeds as any other of their
    method can be chosen, so that one whose other seeds failed is not chosen for a lucky one. Of equal means the config
    that comes first as text is taken.

    Args:
        board: The leaderboard.
        candidates: Rows on the validation split among which is chosen.
        shown: Rows on the splits that are shown.
        within: For each further column, its values for `candidates`: a config is chosen for each of them.

    Raises:
        UserError: No row has a validation score.
    """
    score, metric = _scores(board, candidates)
    has_result = candidates[list(_ROW)].merge(shown[list(_ROW)].drop_duplicates(), "left", indicator=True)["_merge"]
    offered = np.flatnonzero(np.isfinite(score) & (has_result == "both").to_numpy())
    if not len(offered):
        raise UserError(
            "no config has both a score on validation and one on the splits shown: records of earlier versions hold "
            "test scores alone",
            field="select",
            value=VALIDATION,
        )
    keys = candidates[[*FAMILY, *_ROW, "config", "config_hash", "seeds"]].assign(
        score=score, metric=metric, **{f"within{i}": values for i, values in enumerate(within)}
    )
    offered_rows = keys.iloc[offered]
    family = [*FAMILY, "variant", "gallery_variant", *(f"within{i}" for i in range(len(within)))]
    choices = [_choice(members) for _, members in offered_rows.groupby(family, sort=False)]
    best = pd.DataFrame([choice.summary for choice in choices])
    rows = shown.merge(best, on=list(_ROW), how="inner")
    return Selection(rows, [*_notes(board, choices), *_without_validation(shown, offered_rows)])


@dataclass(frozen=True)
class _Choice:
    """Among which configs of a method one was chosen."""

    members: pd.DataFrame
    best: pd.Series
    tied: bool
    short: int
    """Configs that could not be chosen because they have fewer seeds."""

    @property
    def configs(self) -> int:
        return int(self.members["config_hash"].nunique())

    @property
    def summary(self) -> dict[str, object]:
        chosen = {name: self.best[name] for name in _ROW}
        return {**chosen, "chosen_from": self.configs, "validation": self.best["score"]}


def _choice(members: pd.DataFrame) -> _Choice:
    whole = members[members["seeds"] == members["seeds"].max()]
    sign = -1 if higher_is_better(str(members["metric"].iloc[0])) is not False else 1
    ordered = whole.assign(_key=sign * whole["score"]).sort_values(["_key", "config", "config_hash"], kind="stable")
    equal = ordered[ordered["_key"] == ordered["_key"].iloc[0]]
    return _Choice(members, ordered.iloc[0], equal["config_hash"].nunique() > 1, len(members) - len(whole))


def _scores(board: Board, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the task's primary metric of each row, NaN where there is none; and that metric."""
    metric = rows["task"].map(lambda task: PRIMARY_METRIC.get(task, "")).to_numpy(object)
    score = np.full(len(rows), np.nan)
    for name in dict.fromkeys(metric):
        of_task = np.flatnonzero(metric == name)
        cell = board.cell_of(rows.iloc[of_task], str(name), costs=False)
        score[of_task] = np.append(board.cells.mean, np.nan)[cell]
    return score, metric


def _notes(board: Board, choices: Sequence[_Choice]) -> Iterator[str]:
    metrics = ", ".join(dict.fromkeys(str(choice.best["metric"]) for choice in choices))
    yield (
        f"Chosen on validation: of each method, network, budget, preset and variant the config with the best mean "
        f"{metrics} on the validation split; only configs with as many seeds as any other of the method can be chosen. "
        "Scores are of the seeds that chose, so a lucky seed counts in both: fresh seeds tell."
    )
    yield from _numbers_of_configs(choices)
    yield from _also_chosen(board, choices)
    if tied := sum(choice.tied for choice in choices):
        yield f"{tied} of {len(choices)} choices between equal means: the config that comes first as text is shown."
    single = [choice for choice in choices if choice.configs > 1 and choice.best["seeds"] == 1]
    if single:
        yield f"{len(single)} of {len(choices)} choices rest on one seed, whose noise is chosen too."
    if short := sum(choice.short for choice in choices):
        yield f"{short} rows of configs with fewer seeds than others of their method could not be chosen."


def _numbers_of_configs(choices: Sequence[_Choice]) -> Iterator[str]:
    """How many configs each method had, where that is not the same for all."""
    counts: dict[tuple[str, str], dict[str, set[int]]] = {}
    for choice in choices:
        of_data = counts.setdefault((str(choice.best["dataset"]), str(choice.best["task"])), {})
        of_data.setdefault(str(choice.best["method"]), set()).add(choice.configs)
    for (dataset, task), of_data in counts.items():
        texts = [f"{method} {_span(numbers)}" for method, numbers in sorted(of_data.items())]
        if len(set().union(*of_data.values())) > 1:
            yield (
                f"Unequal numbers of configs to choose from on {dataset} ({task}): {_listed(texts)}. The best of more "
                "configs is better by chance alone: compare methods that were tuned with equal budgets."
            )


def _also_chosen(board: Board, choices: Sequence[_Choice]) -> Iterator[str]:
    """Fields that no search chooses, in which the configs differed among which was chosen."""
    for method in sorted({str(choice.best["method"]) for choice in choices}):
        fields: dict[str, None] = {}
        for choice in choices:
            if choice.best["method"] == method and choice.configs > 1:
                groups = [int(group) for group in choice.members["group"]]
                searched = searched_fields(board, groups)
                other = [name for name in _differing(board, groups) if name not in searched]
                fields |= dict.fromkeys(other if searched else ())
        if fields:
            yield (
                f"The configs of {method} differ in fields that its search leaves alone too: {_listed(list(fields))}. "
                f"To choose within each of their values: --group-by {next(iter(fields))}."
            )


def _without_validation(shown: pd.DataFrame, offered: pd.DataFrame) -> Iterator[str]:
    scored = shown[(shown["split"] != "") & (shown["split"] != VALIDATION)]
    known = scored[list(_ROW)].merge(offered[list(_ROW)].drop_duplicates(), "left", indicator=True)["_merge"]
    missing = scored[(known != "both").to_numpy()]
    if len(missing):
        yield (
            f"{len(missing):,} rows without a validation score are not shown ({_listed(sorted(set(missing['method'])))}): "
            "records of earlier versions hold test scores alone, and a filter may have left their validation rows out."
        )


def chosen_on_test(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """A warning where rows of one method that differ in searched fields are ranked by their test scores."""
    tested = rows[rows["split"] == "test"]
    found: dict[str, dict[str, None]] = {}
    unknown: dict[str, None] = {}
    names = [*FAMILY, "tuned", "variant", "gallery_variant"]
    several = tested.groupby(names, sort=False)["config_hash"].transform("nunique") > 1
    seen: set[tuple[int, ...]] = set()
    for _, members in tested[several.to_numpy(bool)].groupby(names, sort=True):
        groups = tuple(sorted({int(group) for group in members["group"]}))
        if groups in seen:
            continue
        seen.add(groups)
        where = f"{members['method'].iloc[0]} on {members['dataset'].iloc[0]}"
        searched = searched_fields(board, groups)
        if not searched:
            unknown[where] = None
        elif fields := [name for name in _differing(board, groups) if name in searched]:
            found.setdefault(where, {}).update(dict.fromkeys(fields))
    if found:
        listed = "; ".join(f"{where} ({_listed(list(fields))})" for where, fields in found.items())
        yield (
            f"Chosen on test: rows that differ in searched fields are ranked by test scores: {listed}. The best of them "
            "is too good by chance; --select validation chooses on validation scores and shows the test score."
        )
    if unknown:
        yield (
            f"Whether a config was chosen on test is not known of {_listed(list(unknown))}: records of earlier versions "
            "do not name searched fields."
        )


def tuned_unequally(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """How many trials chose the configs of tuned rows, where that is not the same for all methods of a task and data set."""
    tuned = rows[(rows["split"] != "") & rows["tuned"].to_numpy(bool)]
    trials = np.append(board.cells.mean, np.nan)[board.cell_of(tuned, SEARCH_TRIALS)]
    tuned = tuned.assign(trials=trials)[np.isfinite(trials)]
    for (dataset, task), members in tuned.groupby(["dataset", "task"], sort=True):
        if members["trials"].nunique() > 1:
            of_method = members.groupby("method")["trials"].agg(lambda found: _span({int(count) for count in found}))
            yield (
                f"Tuned with unequal numbers of trials on {dataset} ({task}): "
                f"{_listed([f'{method} {count}' for method, count in of_method.items()])}. More trials find a better config "
                "by chance alone: compare methods that were tuned with equal budgets."
            )


def searched_fields(board: Board, groups: Sequence[int]) -> set[str]:
    """The config fields that a search of these groups' method may choose; empty where their records do not say."""
    return {name for group in groups for name in board.searched(group)}


def _differing(board: Board, groups: Sequence[int]) -> list[str]:
    return [path.removeprefix("config.") for path in differing(board.config(group) for group in groups)]


def _span(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _listed(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
