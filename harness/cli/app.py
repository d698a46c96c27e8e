"""The application: global options and the list of commands."""

from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness.cli import boards, cluster, curves, inspecting, matrices, reporting, running, tuning, using

app = typer.Typer(
    name="subnetbench",
    help="Benchmark ways to get a small, fast network out of a big one, and compare them honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from subnetbench import __version__

        typer.echo(f"subnetbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="Python file that registers methods or data sets.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command, e.g. `subnetbench --plugin my_method.py run my_method emoji`."""
    from subnetbench.harness.registry import load_plugin

    for path in plugin or []:
        load_plugin(path)


for module in (running, tuning, cluster, inspecting, boards, matrices, curves, reporting, using):
    module.add_commands(app)
