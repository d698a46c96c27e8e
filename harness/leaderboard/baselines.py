"""The best trivial baseline beside each row of a leaderboard."""

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.keys import higher_is_better
from subnetbench.harness.records.record import TRIVIAL

_DATA = ("task", "dataset", "data_digest")


def best_baselines(board: Board, rows: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """For each of some `rows`, the best trivial baseline of its data and split, and its name; NaN and "" without any.

    Baselines belong to the data: what one record states holds for the rows of all others, so that a row that leaves a
    baseline out is compared with it all the same.
    """
    scored = board.scored
    at = np.flatnonzero(scored.trivial)
    cell = board.cell_of(pd.DataFrame({"cell_row": at}), metric, costs=False)
    at, cell = at[cell >= 0], cell[cell >= 0]
    keys = {name: board.runs.groups[name][scored.group[at]] for name in _DATA} | {"split": scored.split[at]}
    names = np.array([name.removeprefix(f"{TRIVIAL}:") for name in scored.variant[at].astype(str)], object)
    known = pd.DataFrame({**keys, "value": board.cells.mean[cell], "name": names})
    known = known.sort_values(["value", "name"], ascending=[higher_is_better(metric) is False, True], kind="stable")
    found = rows[list(keys)].merge(known.drop_duplicates(list(keys)), "left", on=list(keys))
    return found["value"].to_numpy(np.float64), found["name"].fillna("").to_numpy(object)
