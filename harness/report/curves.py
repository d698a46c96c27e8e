"""Lines of metrics against a config field, drawn for a paper: PDF, PNG or SVG by matplotlib, or PGF.

PGF is text that LaTeX typesets with the package pgfplots. Writing it needs neither matplotlib nor LaTeX, and it keeps
the figures as numbers that the authors of a paper can edit.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import publish
from subnetbench.harness.leaderboard.curves import Line
from subnetbench.harness.leaderboard.markup import escape_latex
from subnetbench.harness.report.figures import FORMATS, check_formats, save
from subnetbench.harness.report.looks import STYLE, Style, colour, dash, shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (*FORMATS, "pgf")
_WIDTH, _HEIGHT = 3.5, 2.2  # inches of one panel
_GREY = "#8c959f"
_PGF_HEAD = "% \\usepackage{pgfplots} \\usepgfplotslibrary{groupplots} \\pgfplotsset{compat=1.16}"
_PGF_MARKS = ("*", "square*", "triangle*", "diamond*", "x", "+", "oplus*", "star")
_PGF_DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dash dot"}

Panels = dict[str, list[Line]]


def draw_lines(lines: Sequence[Line], against: str, path: Path) -> Path:
    """Draw one panel a metric, below each other, into `path`, whose suffix says the format.

    Intervals over seeds are error bars; dotted grey lines are trivial baselines. Raises `UserError` for another
    suffix and, for all formats but PGF, where matplotlib is not installed.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise UserError("no such format of figures", field="--draw", value=str(path), allowed=", ".join(SUFFIXES))
    panels: Panels = {}
    for line in lines:
        panels.setdefault(line.metric, []).append(line)
    index = {name: at for at, name in enumerate(dict.fromkeys(line.name for line in lines))}
    if suffix == "pgf":
        text = "\n".join(_pgf(panels, index, against)) + "\n"
        publish(path, lambda file: file.write(text.encode()), overwrite=True)
        return path
    check_formats([suffix])
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return save(_figure(panels, index, against), path)


def _figure(panels: Panels, index: dict[str, int], against: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    looks: dict[str, Style] = {
        name: {"color": colour(at), "marker": shape(at), "linestyle": dash(at), "markersize": 4}
        for name, at in index.items()
    }
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(panels)), layout="constrained")
    every = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (metric, lines) in zip(every, panels.items(), strict=True):
        for line in lines:
            axes.errorbar(line.values, line.mean, yerr=np.nan_to_num(line.half), linewidth=1, **looks[line.name])
        for baseline in _baselines(lines):
            axes.axhline(baseline, color=_GREY, linestyle=":", linewidth=0.9)
        axes.set_ylabel(metric)
    every[-1].set_xlabel(against)
    figure.legend(handles=[Line2D([], [], label=n, **look) for n, look in looks.items()], loc="outside lower center")
    return figure


def _pgf(panels: Panels, index: dict[str, int], against: str) -> Iterable[str]:
    """The lines of a pgfplots picture."""
    looks = {
        name: f"line{at}, {_PGF_DASHES[dash(at)]}, mark={_PGF_MARKS[at % len(_PGF_MARKS)]}, mark options={{solid}}"
        for name, at in index.items()
    }
    yield _PGF_HEAD
    yield "\\begin{tikzpicture}"
    for at in index.values():
        yield f"\\definecolor{{line{at}}}{{HTML}}{{{colour(at)[1:].upper()}}}"
    size = f"width={_WIDTH}in, height={_HEIGHT}in"
    yield f"\\begin{{groupplot}}[group style={{group size=1 by {len(panels)}, vertical sep=6mm}}, {size},"
    yield f"  xlabel={{{escape_latex(against)}}}, legend style={{draw=none, font=\\footnotesize, at={{(0.5,-0.3)}},"
    yield "  anchor=north}, error bars/y dir=both, error bars/y explicit]"
    for number, (metric, lines) in enumerate(panels.items()):
        only_last = "" if number == len(panels) - 1 else ", xlabel={}, xticklabels={}"
        yield f"\\nextgroupplot[ylabel={{{escape_latex(metric)}}}{only_last}]"
        for baseline in _baselines(lines):
            yield f"\\addplot[gray, dotted, forget plot, domain={_domain(lines)}] {{{baseline:.6g}}};"
        for line in lines:
            yield f"\\addplot[{looks[line.name]}, forget plot] coordinates {{"
            for x, y, half in zip(line.values, line.mean, np.nan_to_num(line.half), strict=True):
                yield f"  ({x:.6g}, {y:.6g}) +- (0, {half:.6g})"
            yield "};"
        if number == len(panels) - 1:
            for name, look in looks.items():
                yield f"\\addlegendimage{{{look}}}"
                yield f"\\addlegendentry{{{escape_latex(name)}}}"
    yield "\\end{groupplot}"
    yield "\\end{tikzpicture}"


def _baselines(lines: Sequence[Line]) -> list[float]:
    return sorted({float(value) for line in lines for value in line.trivial if np.isfinite(value)})


def _domain(lines: Sequence[Line]) -> str:
    values = np.concatenate([line.values for line in lines])
    return f"{values.min():.6g}:{values.max():.6g}"
