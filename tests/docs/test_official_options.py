"""The tables of official options: every field and option that they name exists and takes the value that they give."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import TypeAdapter

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.config import Config
from subnetbench.harness.core.written import parse_value
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.method.registry import get_method

PAGE = Path(__file__).parents[2] / "docs" / "official_options.md"


def rows() -> Iterator[tuple[str, str, str]]:
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0] != "official option" and not set(cells[0]) <= {"-"}:
            assert len(cells) == 3, line
            yield cells[0], cells[1], cells[2]


ROWS = list(rows())
NAMED = sorted({name for _, ours, _ in ROWS for name in re.findall(r"`([^`]+)`", ours)})
OPTIONS = {
    option
    for command in ("run", "evaluate")
    for parameter in typer.main.get_command(app).commands[command].params
    for option in parameter.opts
}


def config_of(name: str) -> tuple[type[Config], str]:
    """The config and the field that `method.field`, `data.SET.field` or `compute.field` names."""
    first, _, rest = name.partition(".")
    if first == "data":
        dataset, _, field = rest.partition(".")
        return get_dataset(dataset).Config, field
    return (Compute if first == "compute" else get_method(first).Config), rest


@pytest.mark.parametrize("name", NAMED)
def test_what_a_table_names_exists(name: str) -> None:
    if name.startswith("--"):
        assert name in OPTIONS
        return
    path, has_value, value = name.partition("=")
    config, field = config_of(path)
    assert field in config.model_fields, f"{config.__qualname__} has {', '.join(config.model_fields)}"
    if has_value:
        TypeAdapter(config.model_fields[field].annotation).validate_python(parse_value(value, name))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_official_option_has_a_counterpart_or_a_reason(row: tuple[str, str, str]) -> None:
    official, ours, remark = row
    assert official
    assert re.search("`", ours) or (ours == "-" and remark)


@pytest.mark.parametrize(
    "method", ["prunnet", "switchnet", "distillation", "continuous_sparsification", "aslp", "cascade"]
)
def test_a_published_method_has_a_table(method: str) -> None:
    assert any(name.startswith(f"{method}.") for name in NAMED)
