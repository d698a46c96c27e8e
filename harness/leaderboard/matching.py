"""Which rows of two leaderboards are the same thing, and why the others have no counterpart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.board import Leaderboard

NAME = ("task", "dataset", "method", "network", "split", "variant", "gallery_variant")
"""Rows of two leaderboards are the same thing when they agree in these and in their config."""
FIXED = ("protocol", "data_digest", "schema_meaning")
"""Rows that differ in these are never compared."""
ALLOWABLE = ("budget", "preset", "tuned")
"""Rows that differ in these are compared only when that is asked for."""


@dataclass(frozen=True)
class Side:
    """One of the two leaderboards, with the rows of it that take part, numbered from 0."""

    board: Leaderboard
    rows: pd.DataFrame


@dataclass(frozen=True)
class Matches:
    """Places in the rows of both sides that belong together (pairs,), and a frame of the rest of each side, with
    the `reason` why a row has no counterpart."""

    a: np.ndarray
    b: np.ndarray
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    notes: list[str]


def match(a: Side, b: Side, across: Sequence[str]) -> Matches:
    """Match rows by name, config and circumstances; then, where the config changed and there is only one
    candidate on either side, without the config. `across` names columns that may differ."""
    guards = [*FIXED, *(name for name in ALLOWABLE if name not in across)]
    left_a, left_b = (side.rows.assign(at=np.arange(len(side.rows))) for side in (a, b))
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
        only_a=_without_counterpart(left_a, b.rows, guards),
        only_b=_without_counterpart(left_b, a.rows, guards),
        notes=_changed_configs(a, b, pairs[1]),
    )


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


def _without_counterpart(rows: pd.DataFrame, others: pd.DataFrame, guards: list[str]) -> pd.DataFrame:
    namesakes = others.groupby(list(NAME)).indices
    reasons = []
    for row in rows.to_dict("records"):
        candidates = namesakes.get(tuple(row[name] for name in NAME), ())
        differing = [[name for name in guards if row[name] != others[name].iloc[at]] for at in candidates]
        if not differing:
            reasons.append("no such row on the other side")
        else:
            fewest = min(differing, key=len)
            reasons.append(f"other {', '.join(fewest)}" if fewest else "other config, and several candidates")
    return rows[[*NAME, "config", *guards]].assign(reason=reasons).reset_index(drop=True)
