"""Colours, shapes and style of figures for a paper; the colours and shapes are those of the page."""

from collections.abc import Sequence
from typing import Any

Style = dict[str, Any]  # open: keyword arguments or settings of matplotlib

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SHAPES = ("o", "s", "^", "D", "X", "P", "v", "*")
DASHES = ("-", "--", ":", "-.")
STYLE: Style = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaef",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "subnetbench",
    "text.parse_math": False,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "savefig.bbox": "tight",
}


def colour(at: int) -> str:
    """The colour of the series with this index."""
    return COLOURS[at % len(COLOURS)]


def shape(at: int) -> str:
    """The marker of the series with this index."""
    return SHAPES[at % len(SHAPES)]


def dash(at: int) -> str:
    """The dash pattern of the series with this index: another one each time the colours are used up."""
    return DASHES[at // len(COLOURS) % len(DASHES)]


class Look:
    """Colours, shapes and dashes of methods; the same name looks the same in every figure, and as in the page."""

    def __init__(self, methods: Sequence[str]) -> None:
        self._index = {name: i for i, name in enumerate(sorted(set(methods)))}

    def marker(self, method: str) -> Style:
        at = self._index[method]
        return {"color": colour(at), "marker": shape(at), "linestyle": "none"}

    def line(self, method: str) -> Style:
        at = self._index[method]
        return {"color": colour(at), "linestyle": dash(at), "linewidth": 1}
