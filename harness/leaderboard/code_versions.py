"""Rows of one experiment by other code, on other files or with other numerics: which of them a comparison takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import EXPERIMENT, FOUNDATIONS, IDENTITY
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.foundations import HEADERS

_ROW = (*EXPERIMENT, "split", "variant", "gallery_variant")


@dataclass(frozen=True)
class Candidates:
    """The rows of one side that are compared, and those that are not: a later row of their experiment is (`older`), or
    all runs of the latest code of their config failed (`failing`); both with the `reason`."""

    latest: pd.DataFrame
    older: pd.DataFrame
    failing: pd.DataFrame


def candidates(board: Board, rows: pd.DataFrame) -> Candidates:
    """Of some rows with scores those that are compared: of each experiment the latest row."""
    latest, numbered = board.runs.latest, rows.assign(at=np.arange(len(rows)))
    ordered = numbered.iloc[np.argsort(latest[rows["group"].to_numpy(np.int64)], kind="stable")]
    is_older = ordered.duplicated(list(_ROW), keep="last").reindex(numbered.index).to_numpy()
    why_older = "a later row of the same config is compared: other code, files, numerics or spending"
    older = numbered[is_older].assign(reason=why_older)
    failed = _failed_later(board, rows["group"].to_numpy(np.int64))
    gone = (failed > 0) & ~is_older
    reasons = [f"all {count} runs of its latest code failed" for count in failed[gone]]
    return Candidates(numbered[~is_older & ~gone], older, numbered[gone].assign(reason=reasons))


def _failed_later(board: Board, groups: np.ndarray) -> np.ndarray:
    """For each of some groups, how many runs of its config failed by code that is newer and gave no result at all."""
    names = [*IDENTITY, "data_digest", "code_digest"]
    every = pd.DataFrame({name: board.runs.groups[name] for name in names})
    every = every.assign(latest=board.runs.latest, failed=board.runs.count("failed"))
    failing = every[(every["failed"] > 0) & (board.runs.count("finished") == 0) & (every["code_digest"] != "")]
    if failing.empty:
        return np.zeros(len(groups), np.int64)
    own = every.iloc[groups].assign(at=np.arange(len(groups)))
    pairs = own.merge(failing, on=list(IDENTITY), suffixes=("", "_later"))
    pairs = pairs[(pairs["latest_later"] > pairs["latest"]) & (pairs["code_digest_later"] != pairs["code_digest"])]
    pairs = pairs[pairs["data_digest_later"].isin([""]) | (pairs["data_digest_later"] == pairs["data_digest"])]
    last = pairs.sort_values("latest_later").drop_duplicates("at", keep="last")
    counts = np.zeros(len(groups), np.int64)
    counts[last["at"]] = last["failed_later"]
    return counts


def changes(boards: Sequence[Board], groups: Sequence[np.ndarray]) -> Iterator[str]:
    """In what the rows of b stand on something else than those of a: one sentence. `groups` (pairs,) of both sides."""
    counts, unknown = {}, {}
    for name in FOUNDATIONS:
        before, after = (board.runs.groups[name][group] for board, group in zip(boards, groups, strict=True))
        known = (before != "") & (after != "")
        counts[HEADERS.get(name, name)] = int(((before != after) & known).sum())
        unknown[HEADERS.get(name, name)] = int((~known).sum())
    sides = [_machines(board, group) for board, group in zip(boards, groups, strict=True)]
    for name in boards[0].machines.parts:
        counts[name] = sum(x != y for x, y in zip(sides[0][name], sides[1][name], strict=True))
    words = [f"{name} {count:,}" for name, count in counts.items() if count]
    missing = [f"{name} {count:,}" for name, count in unknown.items() if count]
    if len(groups[0]):
        line = f"Of {len(groups[0]):,} compared pairs of rows, b stands on other: {', '.join(words)}"
        if not words:
            line = f"In all {len(groups[0]):,} compared pairs of rows b stands on the same as a, as far as is known"
        yield line + (f"; unknown on a side: {', '.join(missing)}." if missing else ".")


def _machines(board: Board, groups: np.ndarray) -> dict[str, list[frozenset[object]]]:
    """For each part of machines the values behind each of some groups."""
    runs = np.flatnonzero(board.runs.finished & np.isin(board.runs.group, groups))
    found = {}
    for name, part in board.machines.parts.items():
        pairs = pd.DataFrame({"group": board.runs.group[runs], "value": part.decode(runs)}).drop_duplicates()
        values = pairs.groupby("group")["value"].agg(frozenset)
        found[name] = values.reindex(groups).tolist()
    return found
