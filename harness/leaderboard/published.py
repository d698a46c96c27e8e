"""Figures that papers print, set beside what was measured here; see results/published/README.md for the files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from subnetbench.harness.config import Config
from subnetbench.harness.errors import UserError

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard

FOLDER = Path(__file__).parents[2] / "results" / "published"
SPARSITY_TOLERANCE = 0.01

Verified = Literal[True, False, "quoted", "from memory"]
Number = Annotated[float, Field(allow_inf_nan=False)]
_TRUST: dict[Any, int] = {True: 0, "quoted": 1, "from memory": 2, False: 3}


class _Fields(Config):
    """What may be said of a figure, in a table, a column or a row."""

    source: str = ""
    paper: str = ""
    verified: Verified | None = None
    unit: Literal["percent", "fraction", "ratio", "nats", ""] = ""
    method: str = ""
    label: str = ""
    task: str = ""
    dataset: str = ""
    network: str = ""
    split: str = ""
    variant: str = ""
    gallery_variant: str = ""
    metric: str = ""
    sparsity: Annotated[float, Field(ge=0, le=1)] | None = None
    config: dict[str, bool | int | float | str | list[int | float | str]] = Field(default_factory=dict)
    std: Number | None = None
    seeds: Annotated[int, Field(ge=1)] | None = None
    comparable: bool = True
    note: str = ""


class _Row(_Fields):
    values: list[Number | tuple[Number, Number] | None]


class _Table(_Fields):
    columns: list[_Fields] = Field(default_factory=lambda: [_Fields()])
    rows: list[_Row]


class _File(Config):
    papers: dict[str, str] = Field(default_factory=dict)
    notes: str = ""
    tables: list[_Table]


@dataclass(frozen=True)
class Figure:
    """One published figure, and what its file says of it.

    `value` is a fraction where the source prints per cent; where it prints a range, `value` is the middle of
    `low` and `high`. `citation` is whose result it is.
    """

    value: float
    low: float
    high: float
    citation: str
    says: _Fields


def load_published(paths: Iterable[Path] | None = None) -> list[Figure]:
    """The figures of these files (default: all that this project ships).

    Raises `UserError` naming the file and the field, for a file that is not as the README says.
    """
    files = sorted(FOLDER.glob("*.yaml")) if paths is None else list(paths)
    return [figure for file in files for figure in _load(file)]


def _load(file: Path) -> list[Figure]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot be read: {reason}", field=str(file)) from None
    if not isinstance(content, dict):
        raise UserError("is not a mapping", field=str(file))
    parsed = _File.parse(content, where=file.name)
    return [figure for table in parsed.tables for row in table.rows for figure in _figures(file, parsed, table, row)]


def _figures(file: Path, content: _File, table: _Table, row: _Row) -> Iterable[Figure]:
    if len(row.values) != len(table.columns):
        raise UserError(
            f"a row has {len(row.values)} values for {len(table.columns)} columns", field=file.name, value=row.label
        )
    for column, value in zip(table.columns, row.values, strict=True):
        given: dict[str, Any] = {}
        for part in (table, column, row):
            given |= {name: getattr(part, name) for name in part.model_fields_set & set(_Fields.model_fields)}
        fields = _Fields(**given)
        for required in ("source", "verified", "unit", "metric"):
            if required not in given:
                raise UserError(f"a figure has no {required}", field=file.name, value=fields.label)
        if fields.paper and fields.paper not in content.papers:
            raise UserError("is not among the papers", field=f"{file.name}.paper", value=fields.paper)
        if value is None:
            continue
        divisor = 100 if fields.unit == "percent" else 1
        low, high = (value, value) if isinstance(value, float) else value
        middle = low if low == high else (low + high) / 2
        citation = content.papers.get(fields.paper, "")
        yield Figure(middle / divisor, low / divisor, high / divisor, citation, fields)


def beside(board: "Leaderboard", rows: pd.DataFrame, metrics: Sequence[str], figures: Sequence[Figure]) -> pd.DataFrame:
    """Published beside measured: one line for each pair of a row and a figure of the same thing.

    A figure belongs to a row that agrees in every field the figure gives: task, method, data set, network, split,
    variants, metric, config, and sparsity within 0.01. Columns: `row` (place in `rows`), its method, dataset,
    network, variant and config, `metric`, `label`, `measured`, `half_width`, `published`, `low`, `high`,
    `difference` (measured - published), `verified`, `source`, `citation`, `note`; the most trusted first.
    """
    usable = [figure for figure in figures if figure.says.comparable and figure.says.method]
    sparsity = np.append(board.cells.mean, np.nan)[board.cell_of(rows, "sparsity")]
    lines = []
    for metric in metrics:
        cell = board.cell_of(rows, metric)
        for figure in usable:
            if figure.says.metric == metric:
                matches = np.flatnonzero((cell >= 0) & _agrees(board, rows, figure.says, sparsity))
                lines += [_line(board, rows, int(at), int(cell[at]), figure) for at in matches]
    lines.sort(key=lambda line: (line["row"], line["metric"], _TRUST[line["verified"]]))
    return pd.DataFrame(lines, columns=list(_LINE))


def _agrees(board: "Leaderboard", rows: pd.DataFrame, wanted: _Fields, sparsity: np.ndarray) -> np.ndarray:
    agrees = np.ones(len(rows), bool)
    for name in ("task", "method", "dataset", "network", "split", "variant", "gallery_variant"):
        if value := getattr(wanted, name):
            agrees &= (rows[name] == value).to_numpy()
    if wanted.sparsity is not None:
        agrees &= np.abs(sparsity - wanted.sparsity) <= SPARSITY_TOLERANCE
    if wanted.config:
        # Lists are leaves of a flat config, and stand there as JSON.
        values = {name: json.dumps(v) if isinstance(v, list) else v for name, v in wanted.config.items()}
        for at in np.flatnonzero(agrees):
            config = board.config(int(rows["group"].iloc[at]))
            agrees[at] = all(config.get(f"config.{name}", config.get(name)) == v for name, v in values.items())
    return agrees


_LINE = (
    *("row", "method", "dataset", "network", "variant", "config", "metric", "label", "measured", "half_width"),
    *("published", "low", "high", "difference", "verified", "source", "citation", "note"),
)


def _line(board: "Leaderboard", rows: pd.DataFrame, at: int, cell: int, figure: Figure) -> dict[str, Any]:
    row, says, measured = rows.iloc[at], figure.says, float(board.cells.mean[cell])
    values = (
        *(at, *(row[name] for name in _LINE[1:6]), says.metric, says.label, measured, float(board.half_widths[cell])),
        *(figure.value, figure.low, figure.high, measured - figure.value),
        *(says.verified, says.source, figure.citation, says.note),
    )
    return dict(zip(_LINE, values, strict=True))
