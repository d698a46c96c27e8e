"""The figures of a report for a paper, by matplotlib: PDF and PNG by default, SVG on request.

They draw the same content as the page, in the same colours and shapes. Everything is text to them: names are never
read as formulas.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness.errors import UserError
from subnetbench.harness.records.record import publish
from subnetbench.harness.report.content import Content
from subnetbench.harness.report.selection import better_of, costs_of, in_order, matrices_of, pareto_front, row_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png", "svg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SHAPES = ("o", "s", "^", "D", "X", "P", "v", "*")
DASHES = ("-", "--", ":", "-.")
STYLE: dict[str, Any] = {
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
_WIDTH = 3.5  # inches, one column of a paper
_MOST_ROWS = 60

Draw = Callable[["Axes"], None]


@dataclass
class Look:
    """Colours, shapes and dashes of methods; the same name looks the same in every figure, and as in the page."""

    methods: Sequence[str]
    place: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.place = {name: i for i, name in enumerate(sorted(set(self.methods)))}

    def marker(self, method: str) -> dict[str, Any]:
        at = self.place[method]
        return {"color": COLOURS[at % len(COLOURS)], "marker": SHAPES[at % len(SHAPES)], "linestyle": "none"}

    def line(self, method: str) -> dict[str, Any]:
        at = self.place[method]
        dash = DASHES[at // len(COLOURS) % len(DASHES)]
        return {"color": COLOURS[at % len(COLOURS)], "linestyle": dash, "linewidth": 1}


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, once each. Raises `UserError` for an unknown one, and where matplotlib is not installed."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                "no such format of figures", field="--figure-format", value=name, allowed=", ".join(FORMATS)
            )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        message = "figures for a paper need matplotlib: pip install 'subnetbench[report]'"
        raise UserError(message, field="--figures") from None
    return tuple(dict.fromkeys(formats))


def write_figures(content: Content, folder: Path | str, formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
    """Write every figure of a report's content into a folder, one file a format; returns the files.

    Names tell what is drawn and of what: `trade-off-emoji-classification-test-top1-sparsity.pdf`.
    """
    formats = check_formats(formats)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    written = []
    with mpl.rc_context(STYLE):
        for name, size, draw in _figures(content):
            figure = Figure(figsize=size)
            draw(figure.add_subplot())
            written += [save(figure, Path(folder) / f"{name}.{suffix}") for suffix in formats]
    return written


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure in the format that the file's name ends in; the same figure gives the same bytes."""
    # Without the date the same results give the same files.
    metadata: dict[str, Any] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    publish(path, lambda file: figure.savefig(file, format=path.suffix[1:], metadata=metadata), overwrite=True)
    return path


def _figures(content: Content) -> Iterator[tuple[str, tuple[float, float], Draw]]:
    """Name, size in inches and painter of each figure."""
    look = Look([item["method"] for item in (*content["rows"], *content["studies"])])
    taken: set[str] = set()

    def name(*words: object) -> str:
        base = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9._]+", "-", str(word)).strip("-.") for word in words)))[:120]
        unique = next(n for i in range(len(taken) + 1) if (n := f"{base}-{i + 1}" if i else base) not in taken)
        taken.add(unique)
        return unique

    for index, contest in enumerate(content["contests"]):
        rows = [row for row in content["rows"] if row["contest"] == index]
        lead, told = contest["lead"], (contest["dataset"], contest["task"], contest["split"])
        if not lead:
            continue
        for cost in costs_of(content, rows):
            yield name("trade-off", *told, lead, cost), (_WIDTH, 2.6), _trade_off(content, rows, cost, lead, look)
        for members in matrices_of(rows):
            size = (_WIDTH, 0.5 + 0.42 * len({row["variant"] for row in members}))
            yield name("matrix", *told, lead, members[0]["method"]), size, _matrix(members, lead)
        shown = [row for row in rows if lead in row["cells"]][:_MOST_ROWS]
        yield name("seeds", *told, lead), (_WIDTH, 0.6 + 0.19 * len(shown)), _seeds(content, shown, lead, look)
        tag = f"validation/{lead}"
        if any(tag in run["history"] for _, run in _runs(content, shown)):
            yield name("curves", *told, lead), (_WIDTH, 2.6), _curves(content, shown, tag, look)
    for study in content["studies"]:
        if any(trial["value"] is not None for trial in study["trials"]):
            yield name("study", study["study"], study["method"], study["dataset"]), (_WIDTH, 2.4), _study(study)


def _trade_off(content: Content, rows: list[dict[str, Any]], cost: str, quality: str, look: Look) -> Draw:
    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import EngFormatter

        known = [row for row in rows if cost in row["cells"] and quality in row["cells"]]
        front = pareto_front(content, known, cost, quality)
        points = [(row["cells"][cost]["mean"], row["cells"][quality]["mean"]) for row in front]
        axes.plot(*zip(*points, strict=True), color="#8c959f", linestyle="--", linewidth=0.9, zorder=1)
        for method in sorted({row["method"] for row in known}):
            own = [row["cells"] for row in known if row["method"] == method]
            axes.errorbar(
                [cells[cost]["mean"] for cells in own],
                [cells[quality]["mean"] for cells in own],
                yerr=[cells[quality]["half"] or 0 for cells in own],
                label=method,
                markersize=4.5,
                elinewidth=0.8,
                **look.marker(method),
            )
        values = [row["cells"][cost]["mean"] for row in known]
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_xscale("log")
        elif max(values) >= 1e4:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for axis, metric in ((axes.xaxis, cost), (axes.yaxis, quality)):
            axis.set_label_text(f"{metric} ({'more' if better_of(content, metric) > 0 else 'less'} is better)")
        _legend(axes)

    return draw


def _matrix(members: list[dict[str, Any]], metric: str) -> Draw:
    def draw(axes: "Axes") -> None:
        import numpy as np

        queries, galleries = (in_order({row[n] for row in members}) for n in ("variant", "gallery_variant"))
        values = np.full((len(queries), len(galleries)), np.nan)
        for row in members:
            if metric in row["cells"]:
                at = queries.index(row["variant"]), galleries.index(row["gallery_variant"])
                values[at] = row["cells"][metric]["mean"]
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


def _seeds(content: Content, rows: list[dict[str, Any]], metric: str, look: Look) -> Draw:
    def draw(axes: "Axes") -> None:
        for at, row in enumerate(rows):
            cell = row["cells"][metric]
            axes.errorbar([cell["mean"]], [at], xerr=[cell["half"] or 0], color="#57606a", elinewidth=1, marker="|")
            axes.plot(cell["values"], [at] * len(cell["values"]), markersize=3.5, **look.marker(row["method"]))
        axes.set_yticks(range(len(rows)), row_names(rows))
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric}, each seed, mean and {100 * content['confidence']:g} % interval")

    return draw


def _curves(content: Content, rows: list[dict[str, Any]], tag: str, look: Look) -> Draw:
    def draw(axes: "Axes") -> None:
        for method, run in _runs(content, rows)[:_MOST_ROWS]:
            if tag in run["history"]:
                steps, values = run["history"][tag]
                axes.plot(steps, [float("nan") if v is None else v for v in values], label=method, **look.line(method))
        axes.set_xlabel("epochs done")
        axes.set_ylabel(tag)
        _legend(axes)

    return draw


def _study(study: dict[str, Any]) -> Draw:
    looks = {
        "finished": ("#0072b2", "o"),
        "pruned": ("#e69f00", "X"),
        "failed": ("#d55e00", "^"),
        "partial": ("#cc79a7", "P"),
    }

    def draw(axes: "Axes") -> None:
        told = [trial for trial in study["trials"] if trial["value"] is not None]
        for status, (colour, shape) in looks.items():
            own = [trial for trial in told if trial["status"] == status]
            if own:
                numbers, values = [trial["trial"] for trial in own], [trial["value"] for trial in own]
                axes.plot(numbers, values, linestyle="none", marker=shape, color=colour, markersize=4, label=status)
        best: list[tuple[int, float]] = []
        for trial in told:
            if trial["status"] == "finished" and (not best or study["better"] * (trial["value"] - best[-1][1]) > 0):
                best.append((trial["trial"], trial["value"]))
        if best:
            best.append((study["trials"][-1]["trial"], best[-1][1]))
            axes.step(*zip(*best, strict=True), where="post", color="black", linewidth=1, label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(study["metric"])
        _legend(axes)

    return draw


def _runs(content: Content, rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The runs of some rows, each once, with their methods."""
    places = {place: row["method"] for row in rows for cell in row["cells"].values() for place in cell["runs"]}
    return [(method, content["runs"][place]) for place, method in places.items()]


def _legend(axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
