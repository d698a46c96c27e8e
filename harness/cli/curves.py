"""The command `curve`: metrics against a number in the configs of a sweep, as a table and as a figure. No torch."""

from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness.cli.boards import Where, check_folders
from subnetbench.harness.cli.common import Json, print_json, print_table


def curve(
    folders: Annotated[list[Path], typer.Argument(help="Results folders or record files.")],
    against: Annotated[
        str,
        typer.Option("--against", help="Config field with a number, of the runs or of the runs they start from."),
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric, repeatable: a panel each [default: the task's].")
    ] = None,
    where: Where = None,
    split: Annotated[str, typer.Option("--split", help="Split that was scored.")] = "test",
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw into a .png, .svg, .pdf or .pgf (LaTeX) file as well.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Confidence of the intervals.")] = 0.95,
    json_: Json = False,
) -> None:
    """Show how metrics change with one number of the config, all else equal: a line a variant, mean over seeds.

    Example: `subnetbench curve results/cascade_emoji --against masked_share --draw masking.pdf`
    """
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.curves import lines_of_board
    from subnetbench.harness.leaderboard.tables import number
    from subnetbench.harness.records.read import read_records
    from subnetbench.harness.report.curves import draw_lines

    check_folders(folders)
    board = Leaderboard.from_records(read_records(folders), confidence=confidence)
    lines = lines_of_board(board, against, metric or board.default_metrics[:1], where=where, split=split)
    if json_:
        print_json([line.as_dict() for line in lines])
    else:
        rows = [
            (line.metric, line.name, f"{value:g}", number(mean, half))
            for line in lines
            for value, mean, half in zip(line.values, line.mean, line.half, strict=True)
        ]
        print_table(("metric", "of", against, "mean"), rows)
    if draw is not None:
        typer.echo(f"drew {draw_lines(lines, against, draw)}", err=json_)


def add_commands(app: typer.Typer) -> None:
    app.command()(curve)
