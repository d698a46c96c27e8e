"""The command `matrix`: which network's queries find what in which network's gallery. It does not import torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subnetbench.harness.cli.common import Json, print_json, print_table
from subnetbench.harness.errors import UserError, unknown

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.matrix import Matrix


def matrix(
    runs: Annotated[
        list[str], typer.Argument(help="Results folders, record files, run folders, or (the beginning of) run ids.")
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric, repeatable [default: mAP and recall_at_1].")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="Filter rows, e.g. `--where \"method == 'prunnet'\"`.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split that was scored.")] = "test",
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw heat maps into a .png, .svg or .pdf file as well.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show query network x gallery network: self-tests on the diagonal, cross-tests off it, mean over seeds.

    Example: `subnetbench matrix results/retrieval_emoji --where "method == 'prunnet'" --draw matrix.png`
    """
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.matrix import draw as draw_matrices
    from subnetbench.harness.leaderboard.matrix import matrices_of_board

    board = Leaderboard([path for run in runs for path in _records_of(run)])
    found = matrices_of_board(board, metric, where=where, split=split)
    if not found:
        raise UserError("no network was tested against another in these runs", field="RUNS", value=" ".join(runs))
    if json_:
        print_json([each.as_dict() for each in found])
    else:
        print_matrices(found)
    if draw is not None:
        draw_matrices(found, draw)
        typer.echo(f"drew {draw}", err=json_)


def print_matrices(matrices: "Iterable[Matrix]") -> None:
    """Each matrix as a table, with its means below it."""
    for each in matrices:
        table = each.table()
        typer.echo()
        print_table(table.headers, table.cells, title=table.title)
        typer.echo(each.summary())


def print_matrices_of_run(results: Path, run_id: str) -> None:
    """The matrices of one run, if it has tested networks against each other."""
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.matrix import matrices_of_board

    files = _record_files(results, run_id)
    if files:
        print_matrices(matrices_of_board(Leaderboard(files)))


def _records_of(run: str) -> list[Path]:
    """The record files (or folders) that a user means."""
    path = Path(run).expanduser()
    if path.exists():
        if (path / "spec.json").exists():
            return _existing(path.resolve().parent.parent, path.resolve().name)
        return [path]
    from subnetbench.harness.run_folder import find_runs

    places = [place for place in sorted(Path("results").glob("*")) if (place / "runs").is_dir()]
    known = [folder for place in places for folder in find_runs(place)]
    chosen = [folder for folder in known if folder.run_id.startswith(run)]
    if not chosen:
        raise unknown("run or folder", run, [folder.run_id for folder in known])
    return [file for folder in chosen for file in _existing(folder.results, folder.run_id)]


def _existing(results: Path, run_id: str) -> list[Path]:
    files = _record_files(results, run_id)
    if not files:
        raise UserError(
            "this run has no record file of its own: it is not finished, or its records were merged; "
            "give the results folder and --where",
            field="RUNS",
            value=run_id,
        )
    return files


def _record_files(results: Path, run_id: str) -> list[Path]:
    return sorted((results / "records").glob(f"{run_id}-*.parquet"))


def add_commands(app: typer.Typer) -> None:
    app.command()(matrix)
