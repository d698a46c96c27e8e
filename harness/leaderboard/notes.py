"""What a reader of a leaderboard must know: what was left out, kept apart or put together, and why."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import CIRCUMSTANCES, UNFINISHED

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard

_WORDS = {
    "data_digest": "data digest",
    "schema_meaning": "schema meaning",
    "config_hash": "config",
    "tuned": "tuned or not",
}
_SHOWN = 4


def notes(board: "Leaderboard", rows: pd.DataFrame) -> list[str]:
    """One sentence each, for the rows that are shown."""
    return [
        *_left_out(board),
        *_not_shown(board, rows),
        *_counted(board),
        *_kept_apart(board, rows),
        *_together(board, rows),
        *_method(board, rows),
    ]


def _left_out(board: "Leaderboard") -> Iterator[str]:
    tally, records = board.tally, board.records
    if records.duplicates:
        yield f"{_many(records.duplicates, 'record')} met more than once and counted once."
    if tally.superseded:
        yield (
            f"{_many(tally.superseded, 'attempt')} superseded: of one config and seed, the latest finished "
            "attempt counts, or else the latest."
        )
    if tally.trials:
        yield f"{_many(tally.trials, 'trial')} of searches left out."
    if tally.not_finite:
        yield f"{_many(tally.not_finite, 'figure')} not finite and left out."
    if tally.repeated:
        yield f"{_many(tally.repeated, 'figure')} stated twice in one record; the first counts."
    if records.skipped:
        yield f"{_many(len(records.skipped), 'file')} skipped:"
        yield from (f"  {item.path}: {item.reason}" for item in records.skipped[:_SHOWN])
        if len(records.skipped) > _SHOWN:
            yield f"  and {len(records.skipped) - _SHOWN} more"


def _not_shown(board: "Leaderboard", rows: pd.DataFrame) -> Iterator[str]:
    if hidden := set(board.rows["split"].unique()) - set(rows["split"].unique()) - {""}:
        yield f"Rows on other splits are not shown: {_list(hidden)}."


def _counted(board: "Leaderboard") -> Iterator[str]:
    for status in UNFINISHED:
        if total := int(board.runs.count(status).sum()):
            yield f"{_many(total, 'run')} {status}: counted, not averaged."


def _kept_apart(board: "Leaderboard", rows: pd.DataFrame) -> Iterator[str]:
    """Why one method has several rows on one data set."""
    groups = pd.DataFrame({"group": rows["group"].unique()})
    for name in ("task", "dataset", "method", "network", "preset", "tuned", "config_hash", *CIRCUMSTANCES):
        groups[name] = board.runs.groups[name][groups["group"]]
    for key, members in groups.groupby(["task", "dataset", "method", "network"], sort=True):
        reasons = [
            f"{_WORDS.get(name, name)} ({_list(board.config_labels[members['group']] if name == 'config_hash' else members[name])})"
            for name in ("preset", "tuned", "config_hash", *CIRCUMSTANCES)
            if members[name].nunique() > 1
        ]
        if reasons:
            network = f" with {key[3]}" if key[3] else ""
            yield f"{key[2]}{network} on {key[1]}: not averaged together, because these differ: {'; '.join(reasons)}."


def _together(board: "Leaderboard", rows: pd.DataFrame) -> Iterator[str]:
    from subnetbench.harness.leaderboard.board import CONTEST

    for key, members in rows[rows["split"] != ""].groupby(list(CONTEST), sort=True):
        mixed = [
            f"{_WORDS.get(n, n)} ({_list(members[n])})"
            for n in ("budget", "preset", "tuned")
            if members[n].nunique() > 1
        ]
        if mixed:
            yield f"On {key[1]}, rows are ranked together although these differ: {'; '.join(mixed)}."


def _method(board: "Leaderboard", rows: pd.DataFrame) -> Iterator[str]:
    percent = f"{100 * board.confidence:g} %"
    yield (
        f"Intervals are Student t intervals at {percent} over seeds, not over test items. Rows share a rank where a t "
        f"test (paired by seed where seeds match) finds no difference at {100 - 100 * board.confidence:g} %."
    )
    if single := int((rows["seeds"] == 1).sum()):
        yield f"{_many(single, 'row')} of a single seed: no interval, and no difference that could be significant."


def _list(values: Iterable[object]) -> str:
    texts = [str(value) or "unknown" for value in np.unique(np.asarray(list(values), object).astype(str))]
    return ", ".join(texts[:_SHOWN]) + (f", and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
