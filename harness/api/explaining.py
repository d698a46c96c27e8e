"""In what two rows of a leaderboard differ. Nothing here imports torch."""

from pathlib import Path

from subnetbench.harness.api.lookup import Paths, existing, recorded_folders
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.explain import Explanation, explain_filters, explain_runs
from subnetbench.harness.leaderboard.leaderboard import Leaderboard
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.lookup import run_folder_at


def explain(
    row_a: str | None = None,
    row_b: str | None = None,
    *,
    a: str | None = None,
    b: str | None = None,
    folder: Paths | None = None,
) -> Explanation:
    """In what two rows of a leaderboard differ: config, data, code, numerics, files, libraries, machine, what was spent.

    Rows are named by a run of each, or by a filter for each. Two runs of one row are compared themselves.

    Args:
        row_a: A run of the first row, by (the beginning of) its id or by its folder.
        row_b: A run of the second; None: the other row of the same run id, which was made again by other code.
        a: Filter that selects the first row, as `where` of `leaderboard`; with `b`, in the place of runs.
        b: Filter that selects the second row.
        folder: Results folders or record files; None: those of the runs' folders, or all in `results/`.

    Returns:
        The differences, each with its part, its values on both sides and what it makes of two runs.

    Raises:
        UserError: A folder, run or name is not known, or what is named is no single row.

    Example:
        >>> from subnetbench.harness import api
        >>> found = api.explain(a="config.sparsity == 0.5", b="config.sparsity == 0.8", folder="results/small")
        >>> [(line.name, line.a, line.b) for line in found.differences if line.part == "config"]
        [('config.sparsity', '0.5', '0.8')]
    """
    given = [(None, run) if run is None else _run_at(run) for run in (row_a, row_b)]
    at = [results for results, _ in given if results is not None]
    folders = existing(folder) if folder is not None else list(dict.fromkeys(at)) or recorded_folders()
    board = Leaderboard.from_records(read_records(folders), trials=True)
    board.records.warn()
    if a is not None and b is not None and row_a is None and row_b is None:
        return explain_filters(board, a, b)
    if a is not None or b is not None or given[0][1] is None:
        raise UserError("name runs of two rows, or give filters for both: --a and --b", field="ROW_A", value=row_a)
    return explain_runs(board, given[0][1], given[1][1])


def _run_at(run: str) -> tuple[Path | None, str]:
    """The results folder and the id of a run, if its folder was given, else no folder."""
    folder = run_folder_at(Path(run))
    return (None, run) if folder is None else (folder.results, folder.run_id)
