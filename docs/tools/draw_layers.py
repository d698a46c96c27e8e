"""Draws docs/layers.svg and docs/parts.svg from the layers that tests hold the imports to.

    python docs/tools/draw_layers.py

The lists of layers are those of tests/test_layers.py and tests/test_parts_layers.py, so a picture cannot show others;
a test compares the files with what this draws.
"""

import runpy
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Group:
    """What packages of one colour have in common."""

    name: str
    fill: str
    line: str


USE = Group("what people use", "#efe9fb", "#6a4fb3")
CARRY_OUT = Group("carrying out many runs", "#e2f3f3", "#1f7f86")
PLUG_IN = Group("plug-ins, reached by name", "#fdf0d9", "#b3700a")
RESULTS = Group("results", "#e6f4e6", "#3d8442")
ONE_RUN = Group("one run", "#e5effb", "#2f66ad")
GROUND = Group("what all others use", "#ececf0", "#5b6070")
GROUPS = (USE, CARRY_OUT, PLUG_IN, RESULTS, ONE_RUN, GROUND)

# In a layer, packages stand from left to right in the order of this table.
PACKAGES = {
    "harness/cli": (USE, "parses the command line, calls one function of api, prints"),
    "harness/testing": (USE, "the conformance suite and short runs, for authors of plug-ins"),
    "harness/api": (USE, "one public function for each command, with typed results"),
    "harness/tuning": (CARRY_OUT, "studies with Optuna, whose trials are runs; tuning/slurm has the jobs of a study"),
    "harness/execution": (CARRY_OUT, "runs in this process, in local processes, or as SLURM jobs (execution/slurm)"),
    "methods": (PLUG_IN, "one file a method; methods/parts has what several share"),
    "datasets": (PLUG_IN, "one file a data set; datasets/parts has what several share"),
    "harness/report": (RESULTS, "one HTML page, figures for papers, the folder to publish"),
    "harness/training": (ONE_RUN, "stages, epochs, steps; checkpoints; which epoch is kept"),
    "harness/leaderboard": (RESULTS, "rows, intervals, ranks and comparisons, computed from records"),
    "harness/method": (ONE_RUN, "the contract: all that a method imports from the harness"),
    "harness/evaluation": (ONE_RUN, "outputs of variants, metrics by task, what networks cost"),
    "harness/runs": (ONE_RUN, "a run as data (its spec and id) and as a folder of files"),
    "harness/records": (RESULTS, "one immutable parquet file an attempt"),
    "harness/data": (ONE_RUN, "images, splits; contract of data sets"),
    "harness/distributed": (ONE_RUN, "ranks, devices, collectives"),
    "harness/core": (
        GROUND,
        "errors, configs, the registry, files, hashes, random streams, metrics, statistics, tasks",
    ),
}
# The families of methods/parts, in the same way.
FAMILIES = {
    "capacity": (PLUG_IN, "subnetworks of several capacities in one set of weights: PrunNet, SwitchNet"),
    "masks": (PLUG_IN, "masks on the weights of any network: functions, search, pruning"),
    "text_image": (PLUG_IN, "encoders for text search, their reductions, cascades"),
    "bases": (PLUG_IN, "base classes by task: classifiers, embedders, distillers"),
    "losses": (PLUG_IN, "losses on embeddings: triplets, margins, neighbours, distillation"),
    "networks": (PLUG_IN, "backbones, heads, pooling, batch norm"),
    "views": (PLUG_IN, "random views of images"),
    "vit": (PLUG_IN, "transformers that can be pruned"),
    "optim": (PLUG_IN, "schedules, parameter groups, clipping"),
}

WIDTH, LEFT, RIGHT, TOP = 1000, 78, 18, 22
GAP = 14


def ordered(layers: Sequence[Collection[str]], words: Mapping[str, tuple[Group, str]]) -> list[list[str]]:
    """The layers, top first; packages of a layer from left to right. Raises KeyError for one that has no words here."""
    order = {name: position for position, name in enumerate(words)}
    return [sorted(layer, key=order.__getitem__) for layer in layers]


def pictures() -> dict[Path, str]:
    """The files that are drawn, and what they hold."""
    layers = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))["LAYERS"]
    families = runpy.run_path(str(ROOT / "tests" / "test_parts_layers.py"))["FAMILIES"]
    everything = "The packages of subnetbench in layers: each imports only from layers below its own"
    parts = "The families of methods/parts in layers: each imports only from layers below its own"
    return {
        DOCS / "layers.svg": draw(ordered(layers, PACKAGES), PACKAGES, everything),
        DOCS / "parts.svg": draw(ordered(families, FAMILIES), FAMILIES, parts),
    }


def wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int((width - 34) / 6.3))


def box(name: str, words: tuple[Group, str], x: float, y: float, width: float, height: float) -> list[str]:
    group = words[0]
    lines = wrapped(words[1], width)
    baseline = y + (height - 18 - 15 * (len(lines) - 1)) / 2 + 5
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{group.fill}"'
        f' stroke="{group.line}" stroke-opacity=".45"/>',
        f'<rect x="{x:g}" y="{y + 10:g}" width="4" height="{height - 20:g}" rx="2" fill="{group.line}"/>',
        f'<text x="{x + 18:g}" y="{baseline:g}" class="name" fill="{group.line}">{escape(name)}</text>',
        *(
            f'<text x="{x + 18:g}" y="{baseline + 18 + 15 * number:g}" class="words">{escape(line)}</text>'
            for number, line in enumerate(lines)
        ),
    ]


def arrow(bottom: float) -> list[str]:
    middle = (TOP + bottom) / 2
    return [
        f'<line x1="48" y1="{TOP}" x2="48" y2="{bottom - 12:g}" stroke="#8a90a0" stroke-width="2"/>',
        f'<path d="M 41 {bottom - 14:g} L 55 {bottom - 14:g} L 48 {bottom:g} Z" fill="#8a90a0"/>',
        f'<text x="30" y="{middle:g}" class="side" transform="rotate(-90 30 {middle:g})">imports run down</text>',
    ]


def legend(groups: Sequence[Group], y: float) -> list[str]:
    parts, x = [], float(LEFT)
    for group in groups:
        parts += [
            f'<rect x="{x:g}" y="{y:g}" width="14" height="14" rx="4" fill="{group.fill}" stroke="{group.line}"/>',
            f'<text x="{x + 20:g}" y="{y + 11.5:g}" class="key">{group.name}</text>',
        ]
        x += 20 + 6.3 * len(group.name) + 26
    return parts


def draw(rows: Sequence[Sequence[str]], words: Mapping[str, tuple[Group, str]], title: str) -> str:
    """A picture as the text of an SVG file."""
    parts: list[str] = []
    y = float(TOP)
    for row in rows:
        width = (WIDTH - LEFT - RIGHT - GAP * (len(row) - 1)) / len(row)
        height = 40 + 15 * max(len(wrapped(words[name][1], width)) for name in row)
        for column, name in enumerate(row):
            parts += box(name, words[name], round(LEFT + column * (width + GAP), 1), y, round(width, 1), height)
        y += height + GAP
    bottom = y - GAP
    groups = [group for group in GROUPS if any(group is used for used, _ in words.values())]
    whole = bottom + (50 if len(groups) > 1 else TOP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole:g}" width="{WIDTH}"'
            f' height="{whole:g}" role="img" aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            "<style>"
            "text { font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif }"
            " .name { font: 600 15px ui-monospace, 'SFMono-Regular', 'DejaVu Sans Mono', monospace }"
            " .words { font-size: 12px; fill: #33374a } .key { font-size: 12px; fill: #33374a }"
            " .side { font-size: 13px; fill: #5b6070; text-anchor: middle; letter-spacing: .06em }"
            "</style>",
            f'<rect width="{WIDTH}" height="{whole:g}" rx="12" fill="#ffffff"/>',
            *arrow(bottom),
            *parts,
            *(legend(groups, bottom + 20) if len(groups) > 1 else ()),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for path, picture in pictures().items():
        path.write_text(picture)
