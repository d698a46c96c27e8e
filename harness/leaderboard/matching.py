"""Which rows of two leaderboards are the same thing, and why the others have no counterpart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.code_versions import Candidates, candidates, changes
from subnetbench.harness.leaderboard.frames import column
from subnetbench.harness.leaderboard.spending import align_budgets

NAME = ("task", "dataset", "method", "network", "split", "variant", "gallery_variant")
"""Rows of two leaderboards are the same thing when they agree in these and in their config."""
FIXED = ("protocol", "data_digest", "schema_meaning")
"""Rows that differ in these are never compared."""
ALLOWABLE = ("budget", "preset", "tuned")
"""Rows that differ in these are compared only on request."""


NO_ROW = "no such row on the other side"
_CONTEST = ("task", "dataset", "split")
_MOST_PAIRS = 100_000


@dataclass(frozen=True)
class Side:
    """One of the two leaderboards, with the rows of it that were chosen, and those of them that have scores, numbered
    from 0."""

    board: Board
    chosen: pd.DataFrame

    @cached_property
    def rows(self) -> pd.DataFrame:
        return self.chosen[self.chosen["split"] != ""].reset_index(drop=True)


@dataclass(frozen=True)
class Matches:
    """Indices of the rows of both sides that belong together (pairs,), and the rest of each side with the `reason`
    why a row has no counterpart."""

    a: np.ndarray
    b: np.ndarray
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    notes: list[str]


def match(a: Side, b: Side, across: Sequence[str]) -> Matches:
    """Match rows by name, config and circumstances; then, where the config changed and there is only one
    candidate on either side, without the config. `across` names columns that may differ.

    Code, files and numerics may differ, that is what a comparison is about; of several such rows of one config the
    latest of each side is compared.
    """
    a, b = _with_aligned_budgets(a, b)
    guards = [*FIXED, *(name for name in ALLOWABLE if name not in across)]
    of_a, of_b = (candidates(side.board, side.rows) for side in (a, b))
    left_a, left_b = pd.concat([of_a.latest, of_a.failing]), of_b.latest
    pairs = []
    for keys in ([*NAME, *guards, "config_hash"], [*NAME, *guards]):
        single_a, single_b = (rows[~rows.duplicated(keys, keep=False)] for rows in (left_a, left_b))
        found = single_a[[*keys, "at"]].merge(single_b[[*keys, "at"]], on=keys, suffixes=("_a", "_b"))
        pairs.append(found[["at_a", "at_b"]].to_numpy(np.int64))
        left_a, left_b = left_a[~left_a["at"].isin(found["at_a"])], left_b[~left_b["at"].isin(found["at_b"])]
    together = np.concatenate(pairs)
    together = together[np.argsort(together[:, 0], kind="stable")]
    return Matches(
        a=together[:, 0],
        b=together[:, 1],
        only_a=_failing_in_b(_without_counterpart(left_a, b.rows, NAME, guards), of_b, [*NAME, *guards, "config_hash"]),
        only_b=pd.concat([_without_counterpart(left_b, a.rows, NAME, guards), of_b.older], ignore_index=True),
        notes=[*_older(of_a, of_b), *_changed_configs(a, b, pairs[1]), *_changes(a, b, together)],
    )


def _with_aligned_budgets(a: Side, b: Side) -> tuple[Side, Side]:
    """What was spent is a part of a budget; within 1 % it is the same, in whatever words."""
    rows_a, rows_b = align_budgets(a.chosen, b.chosen)
    return replace(a, chosen=rows_a), replace(b, chosen=rows_b)


def _failing_in_b(rows: pd.DataFrame, of_b: Candidates, keys: list[str]) -> pd.DataFrame:
    """Rows of a without a counterpart, with the reason where b has one that its latest code no longer reaches."""
    reasons = of_b.failing[[*keys, "reason"]].drop_duplicates(keys)
    found = rows[keys].merge(reasons, "left", on=keys)["reason"]
    words = [f"{new} in b" if isinstance(new, str) else old for new, old in zip(found, rows["reason"], strict=True)]
    return rows.assign(reason=words)


def _older(of_a: Candidates, of_b: Candidates) -> list[str]:
    counts = [f"{len(found.older):,} of {side}" for side, found in (("a", of_a), ("b", of_b)) if len(found.older)]
    words = "Rows that are not compared, because a later one of the same config is, by other code, on other files, "
    return [f"{words}with other numerics or at another cost: {', '.join(counts)}."] if counts else []


def _changes(a: Side, b: Side, pairs: np.ndarray) -> list[str]:
    groups = [side.rows["group"].to_numpy(np.int64)[pairs[:, i]] for i, side in enumerate((a, b))]
    return list(changes((a.board, b.board), groups))


def match_sets(a: Side, b: Side, across: Sequence[str], fields: Sequence[str]) -> Matches:
    """Match each row of a with each row of b of the same task, data set, split, data and protocol, and with equal
    values of `fields`; never a row with itself, and no two rows twice.

    Raises:
        UserError: A field is not known, no two rows can be compared, or more than 100,000.
    """
    a, b = _with_aligned_budgets(a, b)
    own = (name for name in ALLOWABLE if name not in across)
    guards = [name for name in dict.fromkeys([*FIXED, *own, *fields]) if name not in _CONTEST]
    rows_a, rows_b = (_with_fields(side, fields) for side in (a, b))
    keys = [*_CONTEST, *guards]
    count = int((rows_a.groupby(keys).size() * rows_b.groupby(keys).size()).sum())
    if count > _MOST_PAIRS:
        raise UserError(f"{count:,} comparisons: narrow the filters, or match fields", field="a")
    found = rows_a[[*keys, "at"]].merge(rows_b[[*keys, "at"]], on=keys, suffixes=("_a", "_b"))
    pairs = found[["at_a", "at_b"]].to_numpy(np.int64)
    if a.board is b.board:
        rows = np.stack([side.rows["cell_row"].to_numpy()[pairs[:, i]] for i, side in enumerate((a, b))], axis=1)
        first = ~pd.DataFrame(np.sort(rows, axis=1)).duplicated().to_numpy()
        pairs = pairs[first & (rows[:, 0] != rows[:, 1])]
    only_a = _without_counterpart(rows_a[~rows_a["at"].isin(found["at_a"])], rows_b, _CONTEST, guards)
    only_b = _without_counterpart(rows_b[~rows_b["at"].isin(found["at_b"])], rows_a, _CONTEST, guards)
    if not len(pairs) and len(rows_a) and len(rows_b):
        raise UserError(f"no row of a can be compared with a row of b: {_why_none(rows_a, rows_b, keys)}", field="b")
    return Matches(pairs[:, 0], pairs[:, 1], only_a, only_b, _changes(a, b, pairs))


def _with_fields(side: Side, fields: Sequence[str]) -> pd.DataFrame:
    """The rows with their numbers as `at`, and each field as text; numbers to three significant digits."""
    rows = side.rows.assign(at=np.arange(len(side.rows)))
    for name in (name for name in fields if name not in rows):
        values = column(side.board, rows, name)
        if values is None:
            raise unknown("column to match", name, [*side.board.rows.columns, *side.board.metrics])
        rows[name] = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
    return rows


def _why_none(rows_a: pd.DataFrame, rows_b: pd.DataFrame, keys: Sequence[str]) -> str:
    """The columns in which the two sets have no value in common, with their values."""
    values = {name: [sorted(set(rows[name].astype(str)))[:3] for rows in (rows_a, rows_b)] for name in keys}
    apart = [
        f"other {name} (a: {', '.join(in_a)}; b: {', '.join(in_b)})"
        for name, (in_a, in_b) in values.items()
        if not set(rows_a[name]) & set(rows_b[name])
    ]
    return "; ".join(apart) or "both are the same row, or each pair differs in " + ", ".join(keys)


def _changed_configs(a: Side, b: Side, pairs: np.ndarray) -> list[str]:
    changes: dict[str, None] = {}
    for at_a, at_b in pairs:
        row = a.rows.iloc[at_a]
        before = a.board.config(int(row["group"]))
        after = b.board.config(int(b.rows["group"].iloc[at_b]))
        words = [
            f"{path.removeprefix('config.')}: {before.get(path, 'not given')} -> {after.get(path, 'not given')}"
            for path in configs.differing([before, after])
        ]
        what = ", ".join(words) or "its hash only"
        changes[f"{row['method']} on {row['dataset']} is compared although its config changed ({what})."] = None
    return list(changes)


def _without_counterpart(
    rows: pd.DataFrame, others: pd.DataFrame, names: Sequence[str], guards: Sequence[str]
) -> pd.DataFrame:
    namesakes = others.groupby(list(names)).indices
    own, theirs = (frame[list(guards)].to_numpy(object) for frame in (rows, others))
    reasons = []
    for key, values in zip(rows[list(names)].itertuples(index=False, name=None), own, strict=True):
        candidates = namesakes.get(key)
        if candidates is None:
            reasons.append(NO_ROW)
        else:
            differing = theirs[candidates] != values
            fewest = differing[differing.sum(axis=1).argmin()]
            what = ", ".join(name for name, differs in zip(guards, fewest, strict=True) if differs)
            reasons.append(f"other {what}" if what else "other config, and several candidates")
    return rows.assign(reason=reasons).reset_index(drop=True)
