"""Commands over records: `leaderboard`, `compare`, `merge`. None of them imports torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from subnetbench.harness.errors import UserError

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard import View

Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", help="Metric to show, repeatable [default: the task's and the costs]."),
]
Where = Annotated[
    str | None, typer.Option("--where", help="Filter rows, e.g. `--where \"sparsity >= 0.8 and method != 'dense'\"`.")
]


def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Results folders or record files, of any number of machines.")],
    metric: Metrics = None,
    where: Where = None,
    sort: Annotated[
        list[str] | None, typer.Option("--sort", help="Column or metric, `-` before it for descending [default: rank].")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Splits to show [default: test].")] = None,
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--group-by",
            "--rank-within",
            help="A table and ranks for each value of this too, e.g. `capacity`, `budget`.",
        ),
    ] = None,
    trials: Annotated[bool, typer.Option("--trials", help="Show the trials of searches too.")] = False,
    confidence: Annotated[float, typer.Option("--confidence", help="Confidence of the intervals.")] = 0.95,
    std: Annotated[bool, typer.Option("--std", help="Show standard deviations beside intervals.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most rows of each table; 0: all.")] = 500,
    sources: Annotated[
        bool, typer.Option("--sources", help="The runs behind each figure instead: value, file, commit, data, command.")
    ] = False,
    published: Annotated[bool, typer.Option("--published", help="Set published figures beside measured ones.")] = False,
    format: Annotated[str, typer.Option("--format", help="terminal, markdown, latex, csv or json.")] = "terminal",
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to a file: .parquet, .csv, .json, .md, .tex or .txt.")
    ] = None,
) -> None:
    """Compare what was measured: mean and interval over seeds, rank, costs, trivial baselines.

    Example: `subnetbench leaderboard results/quickstart --where "sparsity >= 0.5" --format markdown`
    """
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.formats import render, write
    from subnetbench.harness.leaderboard.frames import View
    from subnetbench.harness.leaderboard.published import load_published

    check_folders(folders)
    view = View(metric, where, split or ("test",), sort or (), within or (), std, limit or None)
    if sources:
        _print_sources(folders, view, trials, "json" if json_ else format, out)
        return
    board = Leaderboard(folders, trials=trials, confidence=confidence)
    figures = load_published() if published else ()
    if out is not None:
        write(board, out, view, figures)
        typer.echo(f"wrote {out}")
    else:
        typer.echo(render(board, "json" if json_ else format, view, figures, width=_width()).rstrip("\n"))


def _print_sources(folders: Sequence[Path], view: "View", trials: bool, format: str, out: Path | None) -> None:
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.board import COSTS
    from subnetbench.harness.leaderboard.formats import render_frame, write_frame
    from subnetbench.harness.leaderboard.trace import trace
    from subnetbench.harness.records.read import read_records

    board = Leaderboard.from_records(read_records(folders), trials=trials)
    if view.metrics is None:
        view = replace(view, metrics=[name for name in board.default_metrics if name not in COSTS])
    frame = trace(board, view)
    if out is not None:
        write_frame(frame, out)
        typer.echo(f"wrote {out}")
    elif format == "terminal":
        short = frame.drop(columns=["command", "record_id", "finished_at"])
        typer.echo(render_frame(short, format, _width()).rstrip("\n"))
        typer.echo("Commands that make the runs again: --format csv or json.")
    else:
        typer.echo(render_frame(frame, format).rstrip("\n"))


def compare(
    a: Annotated[Path, typer.Argument(help="Results folder or record file: before.")],
    b: Annotated[Path, typer.Argument(help="Results folder or record file: after.")],
    metric: Metrics = None,
    where: Where = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Splits to compare [default: test].")] = None,
    test: Annotated[
        Literal["t", "sign_flip", "wilcoxon"], typer.Option("--test", help="Test of rows with matching seeds.")
    ] = "t",
    margin: Annotated[
        float, typer.Option("--margin", help="How much worse is acceptable, in the metric's unit.")
    ] = 0.0,
    across: Annotated[
        list[str] | None, typer.Option("--across", help="Column in which the two sides may differ, e.g. `tuned`.")
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Confidence of intervals, level of the tests.")
    ] = 0.95,
    format: Annotated[str, typer.Option("--format", help="terminal, markdown, latex, csv or json.")] = "terminal",
) -> None:
    """What changed between two leaderboards; exit status 1 when a row is worse beyond the margin.

    Example: `subnetbench compare results/before results/after --margin 0.01`
    """
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.compare import Settings
    from subnetbench.harness.leaderboard.compare import compare as compare_boards
    from subnetbench.harness.leaderboard.compare_formats import render

    check_folders([a, b])
    settings = Settings(
        metric, where, split or ("test",), test=test, confidence=confidence, margin=margin, across=across or ()
    )
    differences = compare_boards(Leaderboard(a), Leaderboard(b), settings)
    typer.echo(render(differences, format, width=_width()).rstrip("\n"))
    if differences.exit_status:
        raise typer.Exit(differences.exit_status)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    out: Annotated[Path | None, typer.Option("--out", help="One file for all; nothing is removed then.")] = None,
) -> None:
    """Compact the record files of folders into one each; both stay readable throughout.

    Example: `subnetbench merge results/big_sweep`
    """
    from subnetbench.harness.records.merge import merge as merge_records

    check_folders(folders)
    for merged in merge_records(folders, out):
        typer.echo(f"{merged.path}: {merged.records} records, {len(merged.removed)} files removed")
        for skipped in merged.skipped:
            typer.echo(f"left alone: {skipped.path}: {skipped.reason}", err=True)


def print_board(folder: Path) -> None:
    """The leaderboard of one results folder, as a run or sweep shows it at its end."""
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.formats import render

    typer.echo("\n" + render(Leaderboard(folder), width=_width()).rstrip("\n"))


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((120, 40)).columns


def check_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.exists():
            raise UserError("there is no such folder", field="FOLDER", value=str(folder))


def add_commands(app: typer.Typer) -> None:
    for command in (leaderboard, compare, merge):
        app.command()(command)
