"""What a reader of a leaderboard must know: what was left out, kept apart or put together, and why."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import CIRCUMSTANCES, EXPERIMENT, FOUNDATIONS, UNFINISHED
from subnetbench.harness.leaderboard.baselines import without_frozen
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.foundations import (
    HEADERS,
    differences,
    several_of_one_experiment,
    short,
    times_apart,
)
from subnetbench.harness.leaderboard.interval_notes import interval_notes
from subnetbench.harness.leaderboard.keys import CONTEST
from subnetbench.harness.leaderboard.ranking import FEWEST_SEEDS, MOST_PAIRED
from subnetbench.harness.leaderboard.selection import Selection, chosen_on_test, tuned_unequally
from subnetbench.harness.leaderboard.unrecorded import notes_of

_WORDS = {
    "data_digest": "data digest",
    "schema_meaning": "schema meaning",
    "config_hash": "config",
    "tuned": "tuned or not",
    **HEADERS,
}
_SHOWN = 4
_RUNS = 3


def notes(board: Board, rows: pd.DataFrame, selection: Selection | None = None) -> list[str]:
    """One sentence each, for the rows that are shown; `selection` is how they were chosen, if they were."""
    return [
        *(chosen_on_test(board, rows) if selection is None else selection.notes),
        *tuned_unequally(board, rows),
        *_left_out(board),
        *_not_shown(board, rows),
        *_counted(board),
        *_kept_apart(board, rows),
        *_together(board, rows),
        *times_apart(board, rows),
        *differences(board, rows),
        *without_frozen(board, rows),
        *_method(board, rows),
    ]


def _left_out(board: Board) -> Iterator[str]:
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
        runs = list(dict.fromkeys(fault.run_id for fault in records.not_finite))
        named = f", of {', '.join(runs[:_RUNS])}{', ...' if len(runs) > _RUNS else '.'}" if runs else "."
        yield f"{_many(tally.not_finite, 'value')} not finite and left out{named}"
    if tally.repeated:
        yield f"{_many(tally.repeated, 'value')} stated twice in one record; the first counts."
    yield from records.left_out()
    yield from notes_of(board.without_record)


def _not_shown(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    if hidden := set(board.rows["split"].unique()) - set(rows["split"].unique()) - {""}:
        yield f"Rows on other splits are not shown: {_list(hidden)}."


def _counted(board: Board) -> Iterator[str]:
    for status in UNFINISHED:
        if total := int(board.runs.count(status).sum()):
            yield f"{_many(total, 'run')} {status}: counted, not averaged."


def _kept_apart(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """Why one method has several rows on one data set."""
    groups = pd.DataFrame({"group": rows["group"].unique()})
    for name in (*EXPERIMENT, *FOUNDATIONS):
        groups[name] = board.runs.groups[name][groups["group"]]
    apart = several_of_one_experiment(groups)
    for key, members in groups.groupby(["task", "dataset", "method", "network"], sort=True):
        reasons = [
            f"{_WORDS.get(name, name)} ({_list(board.config_labels[members['group']] if name == 'config_hash' else members[name])})"
            for name in ("preset", "tuned", "config_hash", *CIRCUMSTANCES)
            if members[name].nunique() > 1
        ]
        reasons += [
            f"{_WORDS.get(name, name)} ({_list(short(name, members[name]))})"
            for name in FOUNDATIONS
            if apart[name][members.index].any()
        ]
        if reasons:
            network = f" with {key[3]}" if key[3] else ""
            yield f"{key[2]}{network} on {key[1]}: not averaged together, because these differ: {'; '.join(reasons)}."


def _together(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    for key, members in rows[rows["split"] != ""].groupby(list(CONTEST), sort=True):
        mixed = [
            f"{_WORDS.get(n, n)} ({_list(members[n])})"
            for n in ("budget", "preset", "tuned", "numerics")
            if members[n].nunique() > 1
        ]
        if mixed:
            yield f"On {key[1]}, rows are ranked together although these differ: {'; '.join(mixed)}."


def _method(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    percent = f"{100 * board.confidence:g} %"
    yield from interval_notes(board, rows)
    if (known := _rounded(board, rows)) is not None:
        yield f"No variance over seeds is taken for less than rounding to whole test items gives{known}."
    if unknown := _no_spread(board, rows):
        yield (
            f"{_many(unknown, 'row')} whose seeds all have the same score, and whose records do not say over how many items: no "
            "interval over seeds."
        )
    yield (
        f"Ranks are by mean; their intervals, at {percent} for all rows of a table together, are over seeds, on these test items."
    )
    ranked = rows[(rows["split"] != "") & (rows["seeds"] >= FEWEST_SEEDS)]
    if len(ranked) and ranked.groupby(list(CONTEST)).size().max() > MOST_PAIRED:
        yield (
            f"Above {MOST_PAIRED:,} rows, intervals of ranks are from intervals of all means that hold together "
            "(Bonferroni) instead: wider."
        )
    if failed := int(((rows["failed"] > 0) & (rows["split"] != "")).sum()):
        yield f"{_many(failed, 'row')} with failed runs: mean and rank are over the seeds that finished."
    if single := int((rows["seeds"] == 1).sum()):
        yield f"{_many(single, 'row')} of a single seed: no interval, no rank, and no difference that could be significant."


def _rounded(board: Board, rows: pd.DataFrame) -> str | None:
    """In how many of some rows the number of items is known that variances are floored by, in words; None: in none."""
    scored = rows[(rows["split"] != "") & (rows["seeds"] > 1)]
    known = np.zeros(len(scored), bool)
    for metric in set(board.records.runs["primary_metric"].unique().to_pylist()) & set(board.metrics):
        known |= board.steps_of(board.cell_of(scored, metric, costs=False)) > 0
    if not known.any():
        return None
    return (
        "" if known.all() else f" ({int(known.sum()):,} of {len(known):,} rows; of the others the items are not known)"
    )


def _no_spread(board: Board, rows: pd.DataFrame) -> int:
    """How many rows have several seeds and no interval of the metric that ranks them, since no spread is known."""
    scored = rows[(rows["split"] != "") & (rows["seeds"] > 1)]
    empty = np.zeros(len(scored), bool)
    for metric in set(board.records.runs["primary_metric"].unique().to_pylist()) & set(board.metrics):
        cell = board.cell_of(scored, metric, costs=False)
        several = (cell >= 0) & (np.append(board.cells.count, 0)[cell] > 1) & ~np.append(board.cells.apart, False)[cell]
        empty |= several & np.isnan(np.append(board.half_widths, 0.0)[cell])
    return int(empty.sum())


def _list(values: Iterable[object]) -> str:
    texts = [str(value) or "unknown" for value in np.unique(np.asarray(list(values), object).astype(str))]
    comma = "; " if any("," in text for text in texts) else ", "
    return comma.join(texts[:_SHOWN]) + (f"{comma}and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
