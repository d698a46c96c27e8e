"""Tables for people: one for each contest, with the columns that say something, and figures as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import UNFINISHED
from subnetbench.harness.leaderboard.frames import Figures, View, column, contests_of, view_of
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.published import Figure, beside

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard

_DESCRIBED = ("network", "variant", "gallery_variant", "config", "budget", "preset", "tuned", "schema_meaning")
_HEADERS = {"gallery_variant": "gallery", "schema_meaning": "schema"}
_FAILURES = 10


@dataclass(frozen=True)
class Table:
    """A table of text. `numeric` says which columns are aligned to the right."""

    title: str
    headers: list[str]
    numeric: list[bool]
    cells: list[list[str]]


@dataclass(frozen=True)
class Document:
    """All that is printed of a leaderboard: its tables, and what must be known of them."""

    tables: list[Table]
    notes: list[str]


def document(board: "Leaderboard", view: View, published: Sequence[Figure] = ()) -> Document:
    """The tables of a view; `published` figures that belong to its rows follow in a table of their own."""
    if view.metrics is None:
        view = replace(view, metrics=board.default_metrics)
    rows, figures = view_of(board, view)
    scored = np.flatnonzero((rows["split"] != "").to_numpy())
    numbers = contests_of(board, rows, view.within)[scored]
    contests = [scored[places] for places in pd.Series(numbers).groupby(numbers, sort=False).indices.values()]
    limit = len(rows) if view.limit is None else view.limit
    apart = {name: column(board, rows, name) for name in view.within}
    tables = [_contest(rows, figures, places[:limit], apart, view.spread) for places in contests]
    cut = [
        f"{len(places) - limit:,} more rows of {table.title} are not shown: filter, raise the limit, or write a file."
        for places, table in zip(contests, tables, strict=True)
        if len(places) > limit
    ]
    lines = beside(board, rows, [figure.metric for figure in figures], published)
    if len(lines):
        tables.append(_published(lines))
    return Document(tables, [*cut, *notes(board, rows), *_failures(board)])


def _contest(
    rows: pd.DataFrame,
    figures: list[Figures],
    places: np.ndarray,
    apart: Mapping[str, np.ndarray | None],
    spread: bool,
) -> Table:
    part = rows.iloc[places]
    shown = _described(part)
    own = [figure for figure in figures if (figure.cell[places] >= 0).any()]
    lead = next((figure for figure in own if (figure.rank[places] > 0).any()), None)

    seeds = part["seeds"].to_numpy()
    columns: list[tuple[str, bool, list[str]]] = []
    if lead is not None:
        columns.append(("rank", True, _ranks(lead, places)))
    columns.append(("method", False, list(part["method"])))
    columns += [(_HEADERS.get(name, name), False, [str(value) for value in part[name]]) for name in shown]
    columns.append(("seeds", True, [str(value) for value in seeds]))
    columns += [(status, True, list(map(str, part[status]))) for status in UNFINISHED if part[status].any()]
    for figure in own:
        columns.append(
            (figure.metric, True, [_figure(figure, at, n, spread) for at, n in zip(places, seeds, strict=True)])
        )
        if figure is lead and not np.isnan(figure.trivial[places]).all():
            columns.append(("trivial", True, _trivial(figure, places)))
    ranked = f" · ranked by {lead.metric}" if lead is not None else ""
    title = contest_title(part)
    for name, values in apart.items():
        if values is not None and name not in ("network", "budget", "preset"):
            value = values[places[0]]
            known = value if not isinstance(value, float) else "unknown" if np.isnan(value) else f"{value:.3g}"
            title += f" · {name} {known}"
    return table_of(title + ranked, columns)


def contest_title(rows: pd.DataFrame) -> str:
    """What all rows of a contest have in common, in words."""
    one, shown = rows.iloc[0], _described(rows)
    common = [f"{name} {one[name]}" for name in ("network", "budget", "preset") if name not in shown and one[name]]
    title = [one["dataset"], one["task"], one["split"], one["protocol"], f"data {one['data_digest']}", *common]
    title += ["tuned"] * bool(one["tuned"] and "tuned" not in shown)
    return " · ".join(str(word) for word in title if word)


def _described(rows: pd.DataFrame) -> list[str]:
    """The columns that tell the rows of a contest apart."""
    return [name for name in _DESCRIBED if rows[name].nunique() > 1 and name != "schema_meaning"]


def _published(lines: pd.DataFrame) -> Table:
    names = [n for n in ("method", "dataset", "network", "variant", "config", "metric") if (lines[n] != "").any()]
    columns = [(name, False, list(lines[name])) for name in names]
    columns += [
        ("measured", True, [number(m, h) for m, h in zip(lines["measured"], lines["half_width"], strict=True)]),
        (
            "published",
            True,
            [
                number(value) if low == high else f"{number(low)} to {number(high)}"
                for value, low, high in zip(lines["published"], lines["low"], lines["high"], strict=True)
            ],
        ),
        ("difference", True, [f"{value:+.4f}" for value in lines["difference"]]),
        ("verified", False, [{True: "yes", False: "no"}.get(value, str(value)) for value in lines["verified"]]),
        ("as", False, list(lines["label"])),
        ("source", False, list(lines["source"])),
    ]
    return table_of("Published figures", columns)


def table_of(title: str, columns: Sequence[tuple[str, bool, list[str]]]) -> Table:
    """A table of columns, each a header, whether it is numeric, and its cells."""
    cells = [list(line) for line in zip(*(column for _, _, column in columns), strict=True)]
    return Table(title, [name for name, _, _ in columns], [numeric for _, numeric, _ in columns], cells)


def _ranks(figure: Figures, places: np.ndarray) -> list[str]:
    ranks = figure.rank[places]
    shared = {rank for rank, count in zip(*np.unique(ranks, return_counts=True), strict=True) if count > 1}
    return [f"{rank}=" if rank in shared else str(rank) if rank else "" for rank in ranks]


def _figure(figure: Figures, at: int, seeds: int, spread: bool) -> str:
    if figure.cell[at] < 0:
        return "–"
    text = number(figure.mean[at], figure.half_width[at])
    if spread and not np.isnan(figure.std[at]):
        text += f" sd {number(figure.std[at])}"
    return text if figure.count[at] == seeds else f"{text} [{figure.count[at]}]"


def _trivial(figure: Figures, places: np.ndarray) -> list[str]:
    """The baseline, and whether the interval clears it, where there is an interval."""
    cleared = figure.clears_trivial()
    marks = ["" if np.isnan(figure.half_width[at]) else " ✓" if cleared[at] else " ✗" for at in places]
    return [f"{number(figure.trivial[at])}{mark}" for at, mark in zip(places, marks, strict=True)]


def number(value: float, half_width: float = 0.0) -> str:
    """A figure with its interval: `0.8123 ± 0.0041`, `4.30 M`, `12.30 ± 0.52`; no interval where it is NaN, 0, or
    no more than rounding."""
    if np.isnan(value):
        return "–"
    factor, suffix = next((scale[1:] for scale in _SCALES if abs(value) >= scale[0]), (1.0, ""))
    scaled, half = value / factor, half_width / factor if half_width > 1e-9 * abs(value) else 0.0
    decimals = 4 if abs(value) < 10 else 0 if float(value).is_integer() and not suffix and not half > 0 else 2
    interval = f" ± {half:.{decimals}f}" if half > 0 else ""
    return f"{scaled:.{decimals}f}{interval}{suffix}"


_SCALES = ((1e12, 1e12, " T"), (1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k"))


def _failures(board: "Leaderboard") -> list[str]:
    failures = board.failures()
    lines = [
        f"  {f.method} on {f.dataset}, seed {f.seed}: {f.status}, {f.error_kind}: {f.error}  ({f.run_id})"
        for f in failures.head(_FAILURES).itertuples()
    ]
    if len(failures) > _FAILURES:
        lines.append(f"  and {len(failures) - _FAILURES} more")
    return ["Runs without a result:", *lines] if lines else []
