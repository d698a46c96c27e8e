"""The figures of a comparison over data sets, as functions that draw into the axes of matplotlib."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from subnetbench.harness.report.drawing import Draw
from subnetbench.harness.report.looks import Look
from subnetbench.harness.report.overall import OverTasks, Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = ("iqm", "mean_rank", "borda", "profile_score")


def planned(found: OverTasks, width: float) -> Iterator[tuple[tuple[str, ...], tuple[float, float], Draw]]:
    """Words of the name, size in inches, and what draws each figure."""
    look, count = Look(found.entrants), len(found.entrants)
    for name in _SHOWN:
        if name in found.estimates:
            yield ("overall", found.task, name), (width, 0.6 + 0.19 * count), _estimates(found, name, look)
    yield ("improvement", found.task), (width, 0.8 + 0.22 * count), _improvement(found)
    for profile, kind in zip(found.profiles, ("runs", "ratio"), strict=False):
        yield ("profile", found.task, kind), (width, 2.6), _profile(found, profile, look)


def _estimates(found: OverTasks, name: str, look: Look) -> Draw:
    def draw(axes: "Axes") -> None:
        for at, (entrant, each) in enumerate(zip(found.entrants, found.estimates[name], strict=True)):
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [at, at], color="#57606a", linewidth=1)
            if each.value is not None:
                axes.plot([each.value], [at], markersize=4, **look.marker(entrant))
        axes.set_yticks(range(len(found.entrants)), found.entrants)
        axes.invert_yaxis()
        axes.set_xlabel(found.statistics[name])

    return draw


def _improvement(found: OverTasks) -> Draw:
    def draw(axes: "Axes") -> None:
        import numpy as np

        values = np.array(
            [
                [np.nan if each is None or each.value is None else each.value for each in row]
                for row in found.improvement
            ]
        )
        axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > 0.5 else "black"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=6)
        axes.set_xticks(range(len(found.entrants)), found.entrants, rotation=30, ha="right")
        axes.set_yticks(range(len(found.entrants)), found.entrants)
        axes.set_xlabel("probability that a run of the row beats one of the column")
        axes.grid(False)

    return draw


def _profile(found: OverTasks, profile: Profile, look: Look) -> Draw:
    def draw(axes: "Axes") -> None:
        for at, entrant in enumerate(found.entrants):
            style = look.line(entrant)
            shares, low, high = (
                [float("nan") if value is None else value for value in rows[at]]
                for rows in (profile.shares, profile.low, profile.high)
            )
            axes.plot(profile.levels, shares, label=entrant, **style)
            axes.fill_between(profile.levels, low, high, color=style["color"], alpha=0.12, linewidth=0)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("multiple of the least distance" if "multiple" in profile.title else "normalised score")
        axes.set_ylabel("share")
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)

    return draw
