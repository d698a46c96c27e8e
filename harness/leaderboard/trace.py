"""Every cell back to its runs: their values, files, commits, data, and the commands that make them again."""

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import FOUNDATIONS
from subnetbench.harness.leaderboard.attribution import MEASURED_BY
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.frames import View, view_of
from subnetbench.harness.runs.command import command_of

ROW = (
    "method",
    "dataset",
    "network",
    "split",
    "variant",
    "gallery_variant",
    MEASURED_BY,
    "config",
    "budget",
    "data_digest",
    *FOUNDATIONS,
)
RUN = (
    "run_id",
    "attempt",
    "seed",
    "file",
    "record_id",
    "git_sha",
    "git_dirty",
    "host",
    "device",
    "threads",
    "finished_at",
)


def trace(board: Board, view: View) -> pd.DataFrame:
    """One line for each value of each cell that a view shows, in the order of the leaderboard.

    Columns: those of `ROW` and `metric`, the `value`, those of `RUN`, and `command`. The board must hold all columns
    of its records: `Leaderboard.from_records(read_records(paths))`.
    """
    rows, columns = view_of(board, view)
    parts = []
    for column in columns:
        at = np.flatnonzero(column.cell >= 0)
        slices = [board.cells.part(int(cell)) for cell in column.cell[at]]
        counts = [part.stop - part.start for part in slices]
        line = np.repeat(at, counts)
        of_value = np.concatenate([np.arange(part.start, part.stop) for part in slices] or [np.zeros(0, np.int64)])
        part = rows[list(ROW)].iloc[line].reset_index(drop=True)
        runs = _runs(board, board.cells.runs[of_value])
        parts.append(part.assign(metric=column.metric, value=board.cells.values[of_value], **runs, _line=line))
    if not parts:
        return pd.DataFrame(columns=[*ROW, "metric", "value", *RUN, "command"])
    return pd.concat(parts).sort_values("_line", kind="stable").drop(columns="_line").reset_index(drop=True)


def _runs(board: Board, records: np.ndarray) -> dict[str, np.ndarray]:
    used, of_value = np.unique(records, return_inverse=True)
    runs = board.records.runs.select([*RUN, "spec_json"]).take(used).to_pandas()
    commands = np.array([command_of(spec) for spec in runs["spec_json"]], object)
    return {name: runs[name].to_numpy()[of_value] for name in RUN} | {"command": commands[of_value]}
