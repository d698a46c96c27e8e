"""What a reader must know of the intervals of a leaderboard: over what each is, and where only seeds were possible."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.board import Board

_SHOWN = 4
_WORDS = {
    "seeds": "Student t intervals over seeds, not over test items",
    "items": "over test items (a bootstrap over clusters of them), for the runs that there are, not over seeds",
    "joint": "over seeds and test items together",
}


def interval_notes(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """One sentence each, for the rows and metrics whose intervals were computed."""
    percent = f"{100 * board.confidence:g} %"
    wanted = board.intervals.kind
    scored = rows[rows["split"] != ""]
    if wanted == "seeds" or board.items.store.empty:
        of = "Intervals of costs and times" if wanted == "items" else "Intervals"
        yield f"{of} at {percent} are {_WORDS['seeds']}."
        if wanted == "items" and len(scored):
            yield "No interval over test items: none of these runs has stored outcomes by item."
        return
    counts = dict.fromkeys((*_WORDS, ""), 0)
    for kind in _kinds(board, scored):
        counts[kind] += 1
    yield f"Intervals of scores at {percent} are {_WORDS[wanted]}; those of costs and times are over seeds."
    if wanted == "joint" and counts["seeds"]:
        yield f"{_rows(counts['seeds'])} over seeds alone, and therefore too narrow for other test items: {_reasons(board)}."
    if wanted == "joint" and counts[""]:
        yield f"{_rows(counts[''])} without an interval: of a single seed, or no spread over seeds is known."
    if wanted == "items" and len(scored) > counts["items"]:
        yield f"{_rows(len(scored) - counts['items'])} without an interval: {_reasons(board)}."
    faults = board.items.store.faults()
    yield from (f"  {fault}" for fault in faults[:_SHOWN])
    if len(faults) > _SHOWN:
        yield f"  and {len(faults) - _SHOWN} more files of outcomes by item that cannot be used"


def _kinds(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """Over what the interval of the primary metric of each row is."""
    primary = set(board.records.runs["primary_metric"].unique().to_pylist())
    kind = np.full(len(rows), "", object)
    for metric in board.metrics:
        if metric in primary:
            found = board.intervals.of(metric, board.cell_of(rows, metric, costs=False)).kind
            kind = np.where(found == "", kind, found)
    yield from kind.tolist()


def _reasons(board: Board) -> str:
    """Why there are no outcomes by item, the most frequent reason first."""
    reasons = board.intervals.reasons()
    return "; ".join(reason for reason, _ in reasons.most_common(_SHOWN)) or "it was not asked for"


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count:,} rows are"
