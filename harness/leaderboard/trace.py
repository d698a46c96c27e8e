"""Every cell back to its runs: their values, files, commits, data, and the commands that make them again."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.frames import View, view_of
from subnetbench.harness.report.command import command_of

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard

ROW = ("method", "dataset", "network", "split", "variant", "gallery_variant", "config", "budget", "data_digest")
RUN = ("run_id", "attempt", "seed", "file", "record_id", "git_sha", "git_dirty", "host", "finished_at")


def trace(board: "Leaderboard", view: View) -> pd.DataFrame:
    """One line for each value of each cell that a view shows, in the order of the leaderboard.

    Columns: those of `ROW` and `metric`, the `value`, those of `RUN`, and `command`. The board must hold all columns
    of its records: `Leaderboard.from_records(read_records(paths))`.
    """
    rows, figures = view_of(board, view)
    parts = []
    for figure in figures:
        at = np.flatnonzero(figure.cell >= 0)
        slices = [board.cells.part(int(cell)) for cell in figure.cell[at]]
        counts = [part.stop - part.start for part in slices]
        line = np.repeat(at, counts)
        of_value = np.concatenate([np.arange(part.start, part.stop) for part in slices] or [np.zeros(0, np.int64)])
        part = rows[list(ROW)].iloc[line].reset_index(drop=True)
        runs = _runs(board, board.cells.runs[of_value])
        parts.append(part.assign(metric=figure.metric, value=board.cells.values[of_value], **runs, _line=line))
    if not parts:
        return pd.DataFrame(columns=[*ROW, "metric", "value", *RUN, "command"])
    return pd.concat(parts).sort_values("_line", kind="stable").drop(columns="_line").reset_index(drop=True)


def _runs(board: "Leaderboard", places: np.ndarray) -> dict[str, Any]:
    used, of_value = np.unique(places, return_inverse=True)
    runs = board.records.runs.select([*RUN, "spec_json"]).take(used).to_pandas()
    commands = np.array([command_of(spec) for spec in runs["spec_json"]], object)
    return {name: runs[name].to_numpy()[of_value] for name in RUN} | {"command": commands[of_value]}
