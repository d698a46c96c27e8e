"""The kinds of figures of a report, each as a function that draws into the axes of matplotlib."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from subnetbench.harness.report.figure_rows import better_of, in_order, mean_of, pareto_front, row_names
from subnetbench.harness.report.looks import Look
from subnetbench.harness.report.types import ReportContent, Row, Run, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 60

Draw = Callable[["Axes"], None]


def trade_off(content: ReportContent, rows: Sequence[Row], cost: str, quality: str, look: Look) -> Draw:
    """Quality against cost with the Pareto front, a point a row."""

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import EngFormatter

        known = [row for row in rows if {cost, quality} <= row.cells.keys() and isfinite(mean_of(row, cost))]
        front = pareto_front(content, known, cost, quality)
        points = [(mean_of(row, cost), mean_of(row, quality)) for row in front]
        axes.plot(*zip(*points, strict=True), color="#8c959f", linestyle="--", linewidth=0.9, zorder=1)
        for method in sorted({row.method for row in known}):
            own = [row for row in known if row.method == method]
            axes.errorbar(
                [mean_of(row, cost) for row in own],
                [mean_of(row, quality) for row in own],
                yerr=[row.cells[quality].half or 0 for row in own],
                label=method,
                markersize=4.5,
                elinewidth=0.8,
                **look.marker(method),
            )
        values = [mean_of(row, cost) for row in known]
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_xscale("log")
        elif max(values) >= 1e4:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for axis, metric in ((axes.xaxis, cost), (axes.yaxis, quality)):
            axis.set_label_text(f"{metric} ({'more' if better_of(content, metric) > 0 else 'less'} is better)")
        _legend(axes)

    return draw


def matrix(members: Sequence[Row], metric: str) -> Draw:
    """Query network by gallery network, the values written into the cells."""

    def draw(axes: "Axes") -> None:
        import numpy as np

        queries = in_order({row.variant for row in members})
        galleries = in_order({row.gallery_variant for row in members})
        values = np.full((len(queries), len(galleries)), np.nan)
        for row in members:
            if metric in row.cells:
                values[queries.index(row.variant), galleries.index(row.gallery_variant)] = mean_of(row, metric)
        axes.imshow(values, cmap="Blues", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > middle else "black"
                axes.text(x, y, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(len(galleries)), galleries, rotation=30, ha="right")
        axes.set_yticks(range(len(queries)), queries)
        axes.set_xlabel("gallery embedded by")
        axes.set_ylabel("queries embedded by")
        axes.set_title(metric)
        axes.grid(False)

    return draw


def seeds(content: ReportContent, rows: Sequence[Row], metric: str, look: Look) -> Draw:
    """Each seed of each row, with its mean and interval."""

    def draw(axes: "Axes") -> None:
        for at, row in enumerate(rows):
            cell = row.cells[metric]
            axes.errorbar(
                [mean_of(row, metric)], [at], xerr=[cell.half or 0], color="#57606a", elinewidth=1, marker="|"
            )
            values = [value for value in cell.values if value is not None]
            axes.plot(values, [at] * len(values), markersize=3.5, **look.marker(row.method))
        axes.set_yticks(range(len(rows)), row_names(rows))
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric}, each seed, mean and {100 * content.confidence:g} % interval")

    return draw


def learning_curves(content: ReportContent, rows: Sequence[Row], tag: str, look: Look) -> Draw:
    """The values of a tag over the epochs, a line a run."""

    def draw(axes: "Axes") -> None:
        for method, run in runs_of(content, rows)[:MOST_ROWS]:
            if tag in run.history:
                steps, values = run.history[tag]
                axes.plot(steps, [float("nan") if v is None else v for v in values], label=method, **look.line(method))
        axes.set_xlabel("epochs done")
        axes.set_ylabel(tag)
        _legend(axes)

    return draw


def study_history(study: Study) -> Draw:
    """The value of each trial, and the best one so far."""
    looks = {
        "finished": ("#0072b2", "o"),
        "pruned": ("#e69f00", "X"),
        "failed": ("#d55e00", "^"),
        "partial": ("#cc79a7", "P"),
    }

    def draw(axes: "Axes") -> None:
        known = [(trial, trial.value) for trial in study.trials if trial.value is not None]
        for status, (colour, shape) in looks.items():
            own = [(trial.trial, value) for trial, value in known if trial.status == status]
            if own:
                axes.plot(
                    *zip(*own, strict=True), linestyle="none", marker=shape, color=colour, markersize=4, label=status
                )
        best: list[tuple[int, float]] = []
        for trial, value in known:
            if trial.status == "finished" and (not best or study.better * (value - best[-1][1]) > 0):
                best.append((trial.trial, value))
        if best:
            best.append((study.trials[-1].trial, best[-1][1]))
            axes.step(*zip(*best, strict=True), where="post", color="black", linewidth=1, label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(study.metric)
        _legend(axes)

    return draw


def runs_of(content: ReportContent, rows: Sequence[Row]) -> list[tuple[str, Run]]:
    """The runs of some rows, each once, with their methods."""
    methods = {at: row.method for row in rows for cell in row.cells.values() for at in cell.runs}
    return [(method, content.runs[at]) for at, method in methods.items()]


def _legend(axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
