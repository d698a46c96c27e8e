"""What several commands share: option types, `--set` parsing, JSON output, tables."""

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from subnetbench.harness.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of data sets [default: $SUBNETBENCH_DATA or ~/.cache].")
]
Results = Annotated[Path | None, typer.Option("--out", help="Results folder.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Config field of the method, e.g. `--set sparsity=0.7`.")]
Data = Annotated[
    list[str] | None, typer.Option("--data", help="Config field of the data set, e.g. `--data train_size=1000`.")
]


_ANOTHER = re.compile(r",(?=\s*[A-Za-z_][\w.]*=)")  # a comma before the next name


def assignments(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """`["sparsity=0.7,epochs=3", "capacities=[0.2,0.4]"]` as a dictionary; values are YAML."""
    import yaml

    values: dict[str, Any] = {}
    for text in itertools.chain.from_iterable(map(_ANOTHER.split, texts or [])):
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError("must look like name=value", field=option, value=text)
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError("the value is not valid YAML", field=f"{option} {name}", value=value) from None
    return values


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table on the terminal; texts are shown as they are, markup in them has no effect."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table)


def conditions(values_of: Iterable[tuple[str, Iterable[object]]]) -> str:
    """Under which values of other fields one is searched: `mode sym and loss raml or csd`."""
    return " and ".join(f"{field} {' or '.join(map(str, values))}" for field, values in values_of)


def data_root(given: Path | None) -> Path:
    """The folder of data sets: what was given, else `$SUBNETBENCH_DATA`, else a folder in the user's cache."""
    from subnetbench.harness.paths import default_data_root

    return given.expanduser().resolve() if given else default_data_root()
