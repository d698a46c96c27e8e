"""What several commands share: option types, `--set` parsing, verbosity, JSON output, tables."""

import functools
import inspect
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.written import parse_value

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of data sets [default: $SUBNETBENCH_DATA or ~/.cache].")
]
Results = Annotated[Path | None, typer.Option("--out", help="Results folder.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Config field of the method, e.g. `--set sparsity=0.7`.")]
Data = Annotated[
    list[str] | None, typer.Option("--data", help="Config field of the data set, e.g. `--data train_size=1000`.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", help="Metric to show, repeatable [default: the task's and the costs]."),
]
Where = Annotated[
    str | None, typer.Option("--where", help="Filter rows, e.g. `--where \"sparsity >= 0.8 and method != 'dense'\"`.")
]
Split = Annotated[str, typer.Option("--split", help="Split that was scored.")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Split, repeatable [default: test].")]
Select = Annotated[
    Literal["validation"] | None,
    typer.Option("--select", help="validation: show each method's config that is best on the validation split."),
]
Confidence = Annotated[float, typer.Option("--confidence", help="Confidence of the intervals.")]
FromMemory = Annotated[
    bool, typer.Option("--from-memory", help="Also published values that were entered from memory, read nowhere.")
]
Interval = Annotated[
    Literal["seeds", "items", "joint"],
    typer.Option("--interval", help="Over seeds, over test items, or both (seeds alone where no items are stored)."),
]
Format = Annotated[str, typer.Option("--format", help="terminal, markdown, latex, csv or json.")]
Folders = Annotated[list[Path], typer.Argument(help="Results folders or record files, of any number of machines.")]
On = Annotated[Literal["here", "slurm"], typer.Option("--on", help="here: this machine; slurm: submit and return.")]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", help="Site profile by name, or a YAML file [default: `default`, if there is one]."),
]
CodeChanges = Annotated[
    Literal["refuse", "allow"],
    typer.Option("--code-changes", help="Whether half-finished runs may resume under other code: refuse or allow."),
]
Tracker = Annotated[
    list[str] | None,
    typer.Option("--tracker", help="Tracker by its Accelerate name, repeatable; `none` for none.", show_default=False),
]
Items = Annotated[
    bool,
    typer.Option(
        "--items/--no-items", help="Keep the outcome of every test item, for intervals and tests over test items."
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")]
Rerun = Annotated[
    bool, typer.Option("--rerun", help="Train afresh what stands on other data, files or code than are here now.")
]
RunsPerGpu = Annotated[int, typer.Option("--runs-per-gpu", min=1, help="Runs that may share a GPU.")]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print what the program does, with times.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and the result.")]

_ANOTHER = re.compile(r",(?=\s*[A-Za-z_][\w.]*=)")  # a comma before the next name
_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(?:,|\Z)""", re.DOTALL)


class _Output:
    """What the command that runs now prints."""

    quiet = False
    handler: logging.Handler | None = None


def add_commands(app: typer.Typer, *commands: Callable[..., None]) -> None:
    """Add functions as commands, each with `--verbose` and `--quiet`."""
    for command in commands:
        # A trailing underscore keeps a name from being a keyword of Python.
        app.command(command.__name__.rstrip("_"))(_with_verbosity(command))


def _with_verbosity(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*, verbose: bool = False, quiet: bool = False, **options: Any) -> None:  # open: the command's own
        set_verbosity(verbose, quiet)
        command(**options)

    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("verbose", _Verbose), ("quiet", _Quiet))
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *added])
    run.__dict__["__signature__"] = signature
    run.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return run


def set_verbosity(verbose: bool, quiet: bool) -> None:
    """Send the program's diagnostics to the standard error: all, warnings, or only errors."""
    if verbose and quiet:
        raise UserError("cannot be used together with --quiet", field="--verbose")
    logger = logging.getLogger("subnetbench")
    if _Output.handler is not None:
        logger.removeHandler(_Output.handler)
    _Output.quiet, _Output.handler = quiet, logging.StreamHandler()
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s"
    _Output.handler.setFormatter(logging.Formatter(text))
    logger.addHandler(_Output.handler)
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)


def quiet() -> bool:
    """Whether the command was given `--quiet`."""
    return _Output.quiet


def note(text: str = "", *, err: bool = False) -> None:
    """Print what helps a person but is not the result; `--quiet` leaves it out."""
    if not _Output.quiet:
        typer.echo(text, err=err)


def assignments(texts: Sequence[str] | None, option: str) -> dict[str, Any]:  # open: parsed by a config later
    """`["sparsity=0.7,epochs=3", "capacities=[0.2,0.4]"]` as a dictionary; values are YAML, or texts as written.

    A comma before the next `name=` ends a value, unless it is quoted: `path="a,b=c"`.
    """
    values: dict[str, Any] = {}  # open: parsed by a config later
    for text in texts or []:
        rest = text
        while rest:
            name, equals, rest = rest.partition("=")
            name = name.strip()
            if not equals or not name:
                raise UserError("must look like name=value", field=option, value=text)
            quoted = _QUOTED.match(rest)
            if quoted is not None:
                value, rest = quoted[1], rest[quoted.end() :]
            else:
                value, rest = (*_ANOTHER.split(rest, maxsplit=1), "")[:2]
            if name in values:
                raise UserError("is given twice", field=f"{option} {name}", value=value)
            values[name] = parse_value(value, f"{option} {name}")
    return values


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1, default=str))


def words(text: str) -> tuple[str, ...]:
    """The words of an option such as `worse,missing`; `none` is none. An empty text stays a word, that none allows:
    an unset variable of a script must not switch a check off."""
    found = tuple(word.strip() for word in text.split(",") if word.strip()) or ("",)
    return () if found == ("none",) else found


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table on the terminal; texts are shown as they are, markup in them has no effect."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table)


def print_text(text: str) -> None:
    """Text that was rendered for the terminal, without the empty lines at its end."""
    typer.echo(text.rstrip("\n"))


def width() -> int:
    """Characters in a line of the terminal."""
    return shutil.get_terminal_size((120, 40)).columns


def conditions(values_of: Iterable[tuple[str, Iterable[object]]]) -> str:
    """Under which values of other fields one is searched: `mode sym and loss raml or csd`."""
    return " and ".join(f"{field} {' or '.join(map(str, values))}" for field, values in values_of)


@contextmanager
def filters_as_typed() -> Iterator[None]:
    """Errors of the two filters name them as they are typed here: `--a`, `--b`."""
    try:
        yield
    except UserError as error:
        if error.field not in ("a", "b"):
            raise
        message = str(error).removeprefix(f"{error.field}: ")
        raise UserError(f"--{error.field}: {message}") from None
