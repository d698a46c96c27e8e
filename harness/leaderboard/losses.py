"""What one side of a comparison lacks: rows without a counterpart, seeds that failed, runs that never finished."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard import unrecorded
from subnetbench.harness.leaderboard.aggregate import EXPERIMENT, FOUNDATIONS, IDENTITY
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.keys import KEYS
from subnetbench.harness.leaderboard.matching import ALLOWABLE, FIXED, NAME, NO_ROW, Side
from subnetbench.harness.leaderboard.spending import ALLOWED

FAILED = ("failed", "partial")
"""Statuses of runs without a result; a pruned trial of a search is no failure."""
_FAMILY = ("task", "dataset", "method", "network")
COUNTS = ("seeds_a", "failed_a", "seeds_b", "failed_b")


def unsuccessful(board: Board) -> np.ndarray:
    """For each group, how many runs failed, ended early, or left no record that counts.

    Runs that failed before they knew their data, and those without a record, count for every group of their config.
    """
    groups = pd.DataFrame({name: board.runs.groups[name] for name in unrecorded.CONFIG})
    gone = unrecorded.matching(board.without_record, groups)
    failed = np.asarray(_failed(board) + unrecorded.counts(gone, len(groups)), np.int64)
    unknown = board.runs.groups["data_digest"] == ""
    if not unknown.any():
        return failed
    identity = _identities(board)
    early = np.bincount(identity[unknown], weights=failed[unknown], minlength=len(failed))
    return np.where(unknown, failed, failed + early[identity]).astype(np.int64)


def lost_seeds(
    board: Board, group: np.ndarray, seeds: np.ndarray, absent: np.ndarray, lines: pd.DataFrame
) -> np.ndarray:
    """How many seeds each line has lost in b: their runs are there, without this value.

    `board` is that of b and `group` (lines,) the group of each line in it; `absent` (lines, seeds) says which of
    `seeds` have a value in a alone. A run whose record is not valid, or missing beside its folder, was tried too. Where seeds do not match, fewer of them and failed runs are a loss as well.
    """
    runs = board.runs
    tried = np.flatnonzero((runs.group >= 0) & (runs.status != "pruned") & np.isin(runs.seed, seeds))
    of_seed = np.searchsorted(seeds, runs.seed[tried])
    early = (runs.groups["data_digest"] == "")[runs.group[tried]] & ~runs.finished[tried]
    identity = _identities(board)
    owners = (runs.group[tried], group), (identity[runs.group[tried[early]]], identity[group])
    groups = pd.DataFrame({name: runs.groups[name][group] for name in unrecorded.CONFIG})
    attempted = unrecorded.tried(unrecorded.matching(board.without_record, groups), seeds, len(groups))
    for (own, wanted), seed in zip(owners, (of_seed, of_seed[early]), strict=True):
        keys = wanted[:, None] * len(seeds) + np.arange(len(seeds))
        attempted |= np.isin(keys, own * len(seeds) + seed)
    count_a, count_b, failed_b = (lines[name].to_numpy() for name in ("seeds_a", "seeds_b", "failed_b"))
    fewer = np.minimum(count_a - count_b, failed_b)
    return np.asarray(np.maximum((absent & attempted).sum(axis=1), np.maximum(fewer, 0)))


def with_counts(left: pd.DataFrame, own: Side, other: Side, side: str, *, of_sets: bool) -> pd.DataFrame:
    """Rows of one side ("a" or "b") without a counterpart, with the finished and failed runs of both sides.

    The reason says so where nothing finished on the other side, or where the filter alone left the row out.
    """
    opposite = "b" if side == "a" else "a"
    finished, failed, whose = _of_the_set(left, other) if of_sets else _of_the_method(left, other.board)
    gone = unrecorded.matching(other.board.without_record, left)
    lacking = unrecorded.counts(gone, len(left)) if not of_sets else np.zeros(len(left), np.int64)
    whose = np.where((failed == 0) & (lacking > 0), "", whose)
    failed = failed + lacking
    keys = [name for name in KEYS if name not in FOUNDATIONS]
    everything = other.board.rows[keys].drop_duplicates().assign(there=True)
    there = left[keys].merge(everything, "left", on=keys)["there"].notna().to_numpy() & (not of_sets)
    reasons = [
        f"all {bad} runs{words} failed in {opposite}{', or have no valid record' if gone else ''}"
        if bad and not done
        else f"left out in {opposite} by the filter"
        if filtered and reason == NO_ROW
        else reason
        for bad, done, words, gone, filtered, reason in zip(
            failed, finished, whose, lacking, there, left["reason"], strict=True
        )
    ]
    counts = {
        f"seeds_{side}": left["seeds"].to_numpy(),
        f"failed_{side}": unsuccessful(own.board)[left["group"].to_numpy(np.int64)],
        f"seeds_{opposite}": finished,
        f"failed_{opposite}": failed,
    }
    names = [name for name in (*NAME, "config", *FIXED, *ALLOWABLE) if name in left]
    return left[names].assign(**{name: counts[name] for name in COUNTS}, reason=reasons).reset_index(drop=True)


def unfinished(sides: Sequence[tuple[str, Side]]) -> Iterator[pd.DataFrame]:
    """The configs of two sets of rows of which no run finished: no row stands for them, but they were asked for."""
    for name, side in sides:
        bare = side.chosen[side.chosen["split"] == ""]
        failed = _failed(side.board)[bare["group"].to_numpy(np.int64)]
        found = bare[["task", "dataset"]].assign(**dict.fromkeys(COUNTS, 0)).assign(**{f"failed_{name}": failed})
        names = {key: key if name == "a" else f"{key}_b" for key in (*NAME, "config") if key not in found}
        found = found.assign(**{key: bare[own] for own, key in names.items()}, metric="")
        yield found.assign(reason=[f"all {count} runs failed in {name}" for count in failed])


def missing_of(
    only_a: pd.DataFrame, absent: Sequence[pd.DataFrame], rows: pd.DataFrame, bare: Iterable[pd.DataFrame]
) -> pd.DataFrame:
    """What fails a comparison: rows of a without a counterpart, without a value in b, and with lost seeds; and what
    never finished in sets of rows.

    `metric` is empty where a whole row is missing.
    """
    lost = rows[rows["lost"] > 0]
    words = [
        f"{count} of {seeds} seeds lost in b: {failed} runs failed or left no record that counts ({gone})"
        if gone
        else f"{count} of {seeds} seeds lost in b" + (f": {failed} runs failed" if failed else ": no finite value")
        for count, seeds, failed, gone in zip(
            *(lost[name] for name in ("lost", "seeds_a", "failed_b", "unrecorded_b")), strict=True
        )
    ]
    parts = [*bare, only_a.assign(metric=""), *absent, lost.assign(reason=words)]
    of_b = [name for name in rows.columns if name.endswith("_b") and name.removesuffix("_b") in (*NAME, "config")]
    names = [*NAME, "config", *of_b, "metric", *COUNTS, "reason"]
    found = pd.concat([part.reindex(columns=names) for part in parts if len(part)] or [lost.reindex(columns=names)])
    texts = {name: found[name].astype(object).fillna("") for name in names if name not in COUNTS}
    return found.assign(**texts).astype(dict.fromkeys(COUNTS, np.int64)).reset_index(drop=True)


def failures_of(sides: Sequence[tuple[str, Side]]) -> pd.DataFrame:
    """Every config of either side of which runs failed: `side`, its names, finished (`seeds`) and `failed` runs."""
    names = [*_FAMILY, "config"]
    parts = []
    for name, side in sides:
        groups = side.chosen.drop_duplicates("group")
        count = _failed(side.board)[groups["group"].to_numpy(np.int64)]
        part = groups[[*names, "seeds"]].assign(failed=count, side=name)
        parts.append(part[count > 0])
    found: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return found[["side", *names, "seeds", "failed"]]


def _failed(board: Board) -> np.ndarray:
    return np.asarray(sum(board.runs.count(status) for status in FAILED))


def _identities(board: Board) -> np.ndarray:
    """A number for the config of each group."""
    groups = pd.DataFrame({name: board.runs.groups[name] for name in IDENTITY})
    return groups.groupby(list(IDENTITY), sort=False).ngroup().to_numpy(np.int64)


def _of_the_method(rows: pd.DataFrame, board: Board) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For rows of another board, the finished and failed runs of this one, and words that say whose they are.

    Counted are runs of the same config on the same data, or that failed before they knew it; where there is none,
    and no config of the same method and network finished, those.
    """
    groups = pd.DataFrame(board.runs.groups).assign(seeds=board.runs.count("finished"), failed=_failed(board))
    early = _totals(rows, IDENTITY, groups[groups["data_digest"] == ""])
    # Failed runs spent less, or do not say: they are of the row that was allowed the same.
    same = _totals(rows.assign(budget=rows[ALLOWED]), EXPERIMENT, groups) + early.mul(
        (rows["data_digest"] != "").to_numpy(np.int64), axis=0
    )
    family = _totals(rows, _FAMILY, groups)
    others = (same.sum(axis=1) == 0) & (family["seeds"] == 0)
    chosen = same.where(~others, family)
    return chosen["seeds"].to_numpy(), chosen["failed"].to_numpy(), np.where(others, " of other configs", "")


def _of_the_set(rows: pd.DataFrame, other: Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for a set of rows: all its runs on the same task and data set."""
    groups = other.chosen.drop_duplicates("group")
    groups = groups.assign(failed=_failed(other.board)[groups["group"].to_numpy(np.int64)])
    found = _totals(rows, ("task", "dataset"), groups)
    return found["seeds"].to_numpy(), found["failed"].to_numpy(), np.full(len(rows), "", object)


def _totals(rows: pd.DataFrame, names: Sequence[str], groups: pd.DataFrame) -> pd.DataFrame:
    """For each row the finished (`seeds`) and `failed` runs of the groups that agree with it in some columns."""
    if rows.empty:
        return pd.DataFrame({"seeds": [], "failed": []}, dtype=np.int64)
    sums = groups.groupby(list(names), as_index=False)[["seeds", "failed"]].sum()
    found = rows[list(names)].merge(sums, "left", on=list(names))
    return found[["seeds", "failed"]].fillna(0).astype(np.int64)
