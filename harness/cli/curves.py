"""Commands that tabulate and draw what records hold: `matrix` and `curve`. Neither imports torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import Confidence, Folders, Json, Split, Where, note, print_json, print_table


def matrix(
    runs: Annotated[
        list[str], typer.Argument(help="Results folders, record files, run folders, or (the beginning of) run ids.")
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric, repeatable [default: mAP and recall_at_1].")
    ] = None,
    where: Where = None,
    split: Split = "test",
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw heat maps into a .png, .svg or .pdf file as well.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show query network x gallery network: self-tests on the diagonal, cross-tests off it, mean over seeds.

    Example: `subnetbench matrix results/retrieval_emoji --where "method == 'prunnet'" --draw matrix.png`
    """
    found = api.matrix(runs, metrics=metric, where=where, split=split, draw=draw)
    if json_:
        print_json([each.to_json() for each in found])
    else:
        print_matrices(found)
    if draw is not None:
        note(f"drew {draw}", err=json_)


def curve(
    folders: Folders,
    against: Annotated[
        str,
        typer.Option("--against", help="Config field with a number, of the runs or of the runs they start from."),
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric, repeatable: a panel each [default: the task's].")
    ] = None,
    where: Where = None,
    split: Split = "test",
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw into a .png, .svg, .pdf or .pgf (LaTeX) file as well.")
    ] = None,
    confidence: Confidence = 0.95,
    json_: Json = False,
) -> None:
    """Show how metrics change with one number of the config, all else equal: a line a variant, mean over seeds.

    Example: `subnetbench curve results/cascade_emoji --against masked_share --draw masking.pdf`
    """
    lines = api.curve(folders, against, metrics=metric, where=where, split=split, draw=draw, confidence=confidence)
    if json_:
        print_json([line.to_json() for line in lines])
    else:
        rows = [
            (line.metric, line.name, f"{value:g}", api.number(mean, half))
            for line in lines
            for value, mean, half in zip(line.values, line.mean, line.half, strict=True)
        ]
        print_table(("metric", "of", against, "mean"), rows)
    if draw is not None:
        note(f"drew {draw}", err=json_)


def print_matrices(matrices: "Iterable[api.Matrix]") -> None:
    """Each matrix as a table, with its means below it."""
    for each in matrices:
        table = each.table()
        typer.echo()
        print_table(table.headers, table.cells, title=table.title)
        typer.echo(each.summary())
