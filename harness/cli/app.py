"""The application: global options and the list of commands."""

from pathlib import Path
from typing import Annotated

import typer

from subnetbench import __version__
from subnetbench.harness import api
from subnetbench.harness.cli import (
    boards,
    curves,
    importing,
    inspecting,
    reporting,
    running,
    slurm,
    tracking,
    tuning,
    using,
)
from subnetbench.harness.cli.common import add_commands

app = typer.Typer(
    name="subnetbench",
    help="Benchmark ways to get a small, fast network out of a big one, and compare them honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(given: bool) -> None:
    if given:
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
    for path in plugin or []:
        api.load_plugin(path)


add_commands(
    app,
    running.run,
    running.sweep,
    importing.import_,
    tuning.tune,
    slurm.plan,
    inspecting.status,
    inspecting.logs,
    slurm.cancel,
    running.clean,
    boards.leaderboard,
    boards.aggregate,
    boards.compare,
    boards.explain,
    tracking.history,
    tracking.claims,
    curves.matrix,
    curves.curve,
    reporting.report,
    reporting.reproduce,
    reporting.publish,
    boards.merge,
    boards.validate,
    using.evaluate,
    using.embed,
    using.export,
    inspecting.methods,
    inspecting.datasets,
    using.check,
    inspecting.doctor,
)
