"""Figures of a study: history, slices, importances, and the front of two objectives. Needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.space import Dimension


def draw(search: Search, history: pd.DataFrame, importances: Mapping[str, Mapping[str, float]], folder: Path) -> None:
    """Write `history.svg`, `slices.svg`, `importances.svg` and `front.svg`, as far as there is something to show.

    Args:
        search: the study.
        history: trial, value and best value so far.
        importances: the importance of each field, by objective.
        folder: where the figures go.
    """
    names = [objective.metric for objective in search.objectives]
    trials = search.trials(TrialState.COMPLETE)
    if len(history):
        _draw_history(history, names[0]).savefig(folder / "history.svg")
    if trials:
        _draw_slices(trials, search.space.dimensions, names).savefig(folder / "slices.svg")
    if any(importances.values()):
        _draw_importances(importances).savefig(folder / "importances.svg")
    if len(names) == 2 and trials:
        _draw_front(trials, search.best(), names).savefig(folder / "front.svg")


def _draw_history(history: pd.DataFrame, name: str) -> Figure:
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(history["trial"], history["value"], "o", markersize=4, label="trial")
    axes.step(history["trial"], history["best"], where="post", label="best so far")
    axes.set(xlabel="trial", ylabel=f"{name} (validation)")
    axes.legend()
    return figure


def _draw_slices(trials: Sequence[FrozenTrial], dimensions: Sequence[Dimension], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(3 * len(dimensions), 2.6 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(dimensions), squeeze=False)
    for i, name in enumerate(names):
        for j, dimension in enumerate(dimensions):
            having = [trial for trial in trials if dimension.name in trial.params]
            numeric = isinstance(dimension.distribution, FloatDistribution | IntDistribution)
            x = [trial.params[dimension.name] if numeric else str(trial.params[dimension.name]) for trial in having]
            grid[i, j].plot(x, [trial.values[i] for trial in having], "o", markersize=4)
            if getattr(dimension.distribution, "log", False):
                grid[i, j].set_xscale("log")
            grid[i, j].set(xlabel=dimension.name, ylabel=name if j == 0 else "")
    return figure


def _draw_importances(importances: Mapping[str, Mapping[str, float]]) -> Figure:
    bars = sum(map(len, importances.values()))
    figure = Figure(figsize=(5, 0.4 * bars + 1), layout="constrained")
    axes = figure.subplots()
    for name, values in importances.items():
        labels = [field if len(importances) == 1 else f"{field} ({name})" for field in values]
        axes.barh(labels, list(values.values()), label=name)
    axes.invert_yaxis()
    axes.set(xlabel="importance (PED-ANOVA)")
    return figure


def _draw_front(trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([t.values[1] for t in trials], [t.values[0] for t in trials], "o", markersize=4, label="trial")
    front = sorted((t.values[1], t.values[0]) for t in best)
    axes.plot([x for x, _ in front], [y for _, y in front], "o-", markersize=5, label="Pareto front")
    axes.set(xlabel=names[1], ylabel=f"{names[0]} (validation)")
    axes.legend()
    return figure
