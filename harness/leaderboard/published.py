"""Values that papers print; see results/published/README.md for the files, `beside.py` for what they are set beside."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from subnetbench.harness.core.config import Config
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.written import read_written

FOLDER = Path(__file__).parents[2] / "results" / "published"
FROM_MEMORY = "from memory"

Verified = Literal[True, False, "quoted", "from memory"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Stated(Config):
    """What may be stated of a value, in a table, a column or a row."""

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
    protocol: str = ""
    epochs: Annotated[int, Field(ge=0)] | None = None
    images: Annotated[int, Field(ge=1)] | None = None
    image_size: Annotated[int, Field(ge=1)] | Literal["native"] | None = None
    variant: str = ""
    gallery_variant: str = ""
    metric: str = ""
    sparsity: Annotated[float, Field(ge=0, le=1)] | None = None
    config: dict[str, bool | int | float | str | list[int | float | str]] = Field(default_factory=dict)
    std: Number | None = None
    seeds: Annotated[int, Field(ge=1)] | None = None
    comparable: bool = True
    note: str = ""


class _Row(Stated):
    values: list[Number | tuple[Number, Number] | None]


class _Table(Stated):
    columns: list[Stated] = Field(default_factory=lambda: [Stated()])
    rows: list[_Row]


class _File(Config):
    papers: dict[str, str] = Field(default_factory=dict)
    notes: str = ""
    tables: list[_Table]


@dataclass(frozen=True)
class PublishedValue:
    """One published value, and what its file states of it.

    `value` is a fraction where the source prints per cent; where it prints a range, `value` is the middle of
    `low` and `high`. `citation` is whose result it is. A value that is not `shown` is counted, but set beside nothing.
    """

    value: float
    low: float
    high: float
    citation: str
    stated: Stated
    shown: bool = True


def load_published(paths: Iterable[Path] | None = None, *, from_memory: bool = False) -> list[PublishedValue]:
    """The values of these files (default: all that this project ships).

    Values that were entered from memory, not read anywhere, are not `shown` unless `from_memory`.

    Raises `UserError` naming the file and the field, for a file that is not as the README says.
    """
    files = sorted(FOLDER.glob("*.yaml")) if paths is None else list(paths)
    values = [value for file in files for value in _load(file)]
    return [replace(value, shown=from_memory or value.stated.verified != FROM_MEMORY) for value in values]


def _load(file: Path) -> list[PublishedValue]:
    content = read_written(file)
    if not isinstance(content, dict):
        raise UserError("is not a mapping", field=str(file))
    parsed = _File.parse(content, where=file.name)
    return [value for table in parsed.tables for row in table.rows for value in _values(file, parsed, table, row)]


def _values(file: Path, content: _File, table: _Table, row: _Row) -> Iterable[PublishedValue]:
    if len(row.values) != len(table.columns):
        raise UserError(
            f"a row has {len(row.values)} values for {len(table.columns)} columns", field=file.name, value=row.label
        )
    for column, value in zip(table.columns, row.values, strict=True):
        given: dict[str, object] = {}
        for part in (table, column, row):
            given |= {name: getattr(part, name) for name in part.model_fields_set & set(Stated.model_fields)}
        fields = Stated.model_validate(given)
        for required in ("source", "verified", "unit", "metric"):
            if required not in given:
                raise UserError(f"a value has no {required}", field=file.name, value=fields.label)
        if fields.paper and fields.paper not in content.papers:
            raise UserError("is not among the papers", field=f"{file.name}.paper", value=fields.paper)
        if value is None:
            continue
        divisor = 100 if fields.unit == "percent" else 1
        low, high = (value, value) if isinstance(value, float) else value
        middle = low if low == high else (low + high) / 2
        citation = content.papers.get(fields.paper, "")
        yield PublishedValue(middle / divisor, low / divisor, high / divisor, citation, fields)
