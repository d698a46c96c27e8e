"""Figures of a study: history, slices, importances, and the front of two objectives. Needs matplotlib."""

from pathlib import Path

from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from subnetbench.harness.tuning.search import Search


def draw(search: Search, importances: dict[str, dict[str, float]], folder: Path) -> None:
    """Write `history.svg`, `slices.svg`, `importances.svg` and `front.svg`, as far as there is something to show."""
    from subnetbench.harness.tuning.study_files import history

    names = [objective.metric for objective in search.objectives]
    rows = history(search)
    if rows:
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot([row[0] for row in rows], [row[1] for row in rows], "o", markersize=4, label="trial")
        axes.step([row[0] for row in rows], [row[2] for row in rows], where="post", label="best so far")
        axes.set(xlabel="trial", ylabel=f"{names[0]} (validation)")
        axes.legend()
        figure.savefig(folder / "history.svg")
    trials = search.trials(TrialState.COMPLETE)
    dimensions = search.space.dimensions
    if trials:
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
        figure.savefig(folder / "slices.svg")
    if any(importances.values()):
        figure = Figure(figsize=(5, 0.4 * len(dimensions) * len(names) + 1), layout="constrained")
        axes = figure.subplots()
        for name, values in importances.items():
            labels = [field if len(names) == 1 else f"{field} ({name})" for field in values]
            axes.barh(labels, list(values.values()), label=name)
        axes.invert_yaxis()
        axes.set(xlabel="importance (PED-ANOVA)")
        figure.savefig(folder / "importances.svg")
    if len(names) == 2 and trials:
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([t.values[1] for t in trials], [t.values[0] for t in trials], "o", markersize=4, label="trial")
        front = sorted((t.values[1], t.values[0]) for t in search.best())
        axes.plot([x for x, _ in front], [y for _, y in front], "o-", markersize=5, label="Pareto front")
        axes.set(xlabel=names[1], ylabel=f"{names[0]} (validation)")
        axes.legend()
        figure.savefig(folder / "front.svg")
