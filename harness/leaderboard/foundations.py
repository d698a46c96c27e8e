"""What rows stand on, in words: how rows are told apart, and how many differ in what."""

import logging
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.aggregate import EXPERIMENT, FOUNDATIONS, MACHINE
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.keys import CONTEST
from subnetbench.harness.leaderboard.machines import versions_apart

HEADERS: Mapping[str, str] = {"code_digest": "code", "files_digest": "files"}
"""How columns are called in tables; others have their own names."""
UNKNOWN = "unknown"
_OTHER = "other than most in"
_log = logging.getLogger(__name__)
_DIGITS = 8
_NAMED = 3
_VARIANT = ("split", "variant", "gallery_variant")
_COMPARED: Mapping[str, tuple[str, ...]] = {
    "code_digest": ("task", "dataset", "method"),
    "files_digest": (*EXPERIMENT, *_VARIANT),
    "numerics": CONTEST,
    # Of rows, the budget says what was spent.
    "spending": (*(name for name in EXPERIMENT if name != "budget"), *_VARIANT),
}
"""Among which rows a difference counts: other configs may well read other files, and other methods have other code."""


def short(name: str, values: Iterable[object]) -> list[str]:
    """Values of one of `FOUNDATIONS`, or machines, for people: the beginning of a digest."""
    texts = [str(value) or UNKNOWN for value in values]
    return [text[:_DIGITS] if name.endswith("_digest") and text != UNKNOWN else text for text in texts]


def told_apart_by(rows: pd.DataFrame) -> list[str]:
    """The `FOUNDATIONS` in which rows of one method, or of one config, differ: a table needs them as columns."""
    among = {"code_digest": ["method"], "numerics": ["method"], "files_digest": [*EXPERIMENT, *_VARIANT]}
    # What was spent is a part of the budget, which is a column of its own.
    found = [name for name in among if rows[name].nunique() > 1 and _several(rows, among[name], name).any()]
    return [*found, MACHINE] if (rows[MACHINE] != "").any() else found


def several_of_one_experiment(groups: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each of `FOUNDATIONS`, which groups have others that differ from them in nothing but these."""
    return {name: _several(groups, list(EXPERIMENT), name) for name in FOUNDATIONS}


def _several(rows: pd.DataFrame, among: list[str], name: str) -> np.ndarray:
    if rows[name].nunique() < 2:
        return np.zeros(len(rows), bool)
    return (rows.groupby(among, sort=False)[name].transform("nunique") > 1).to_numpy()


def differences(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """How many of some rows differ in what from rows that they are compared with: one line."""
    rows = rows[rows["split"] != ""]
    if rows.empty:
        return
    counts = {HEADERS.get(name, name): _unusual(rows, name) for name in FOUNDATIONS}
    words = [f"{name} {count:,}" for name, count in counts.items() if count]
    words += _machines(board, rows)
    unknown = [f"{HEADERS.get(name, name)} of {n:,}" for name in FOUNDATIONS if (n := int((rows[name] == "").sum()))]
    line = f"What {len(rows):,} rows stand on: " if len(rows) > 1 else "What 1 row stands on: "
    # Of other configs and budgets, what was spent may well differ, and is in the budget of each row.
    known = [HEADERS.get(name, name) for name in FOUNDATIONS if (rows[name] != "").any()]
    alike = [name for name in known if name != "spending" or rows["spending"].nunique() < 2] + ["machine"]
    line += f"{_OTHER} {', '.join(words)}" if words else f"no difference in {', '.join(alike)}"
    line += f"; unknown: {', '.join(unknown)}" if unknown else ""
    for several, code, commits in _of_several_commits(board, rows):
        line += f"; {several:,} of {code} code average{'s' if several == 1 else ''} over several commits{commits}"
    yield line + ". `subnetbench explain` prints the differences of two rows."


def warn_of_differences(board: Board, rows: pd.DataFrame) -> None:
    """Log what some rows differ in and which times have no mean, for listings that have no room for notes."""
    for line in [*times_apart(board, rows), *(line for line in differences(board, rows) if _OTHER in line)]:
        _log.warning(line)


def _unusual(rows: pd.DataFrame, name: str) -> int:
    """How many rows have another value than most of the rows that they are compared with."""
    if rows[name].nunique() < 2:
        return 0
    among = list(_COMPARED[name])
    sizes = rows.groupby([*among, name], sort=False).size()
    return len(rows) - int(sizes.groupby(level=among, sort=False).max().sum())


def _of_several_commits(board: Board, rows: pd.DataFrame) -> Iterator[tuple[int, str, str]]:
    """How many rows stand on runs of several commits, or of a commit with and without changes; and on which.

    Of unknown code, then of code that is known, and the same in all of these commits.
    """
    runs = np.flatnonzero(board.runs.finished)
    group = board.runs.group[runs]
    found = board.records.runs.select(["git_sha", "git_dirty"]).take(runs).to_pandas()
    commits = found["git_sha"].astype(str).str[:_DIGITS] + np.where(found["git_dirty"].astype(bool), "+", "")
    unknown = board.runs.groups["code_digest"][group] == ""
    for code, among in (("unknown", unknown), ("unchanged", ~unknown)):
        counts = commits[among].groupby(group[among]).nunique()
        several = counts.index[counts > 1].intersection(pd.Index(rows["group"]))
        if len(several):
            names = sorted(set(commits[np.isin(group, several)]) - {""})
            yield int(rows["group"].isin(several).sum()), code, f" ({_some(names)})" if names else ""


def _machines(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """Parts of machines in which runs behind some rows differ from most runs, with the number of rows."""
    runs = np.flatnonzero(board.runs.finished)
    group = board.runs.group[runs]
    shown = np.bincount(rows["group"], minlength=len(board.runs))
    runs, group = runs[shown[group] > 0], group[shown[group] > 0]
    averaged = board.machines.differing(group, runs, len(shown))
    for name, part in board.machines.parts.items():
        codes = part.codes[runs]
        if len(codes) and (codes != codes[0]).any():
            other = np.zeros(len(shown), bool)
            other[group[codes != np.bincount(codes).argmax()]] = True
            over = int(shown[averaged[name]].sum())
            which = _named(name, set(part.decode(runs[averaged[name][group]])))
            several = f" ({over:,} average{'s' if over == 1 else ''} over several{which})" if over else ""
            yield f"{name} {int(shown[other].sum()):,}{several}"


def _named(name: str, values: set[object]) -> str:
    """What is averaged over, by name, as far as there is room."""
    texts = sorted(str(value) for value in values if value != "")
    words = versions_apart(texts) if name == "libraries" else texts if name == "device" else []
    return f": {_some(words)}" if words else ""


def _some(words: list[str]) -> str:
    return ", ".join(words[:_NAMED]) + (", ..." if len(words) > _NAMED else "")


def times_apart(board: Board, rows: pd.DataFrame) -> Iterator[str]:
    """Which times have no mean, and why."""
    if not board.cells.apart.any():
        return
    rows = rows[rows["split"] != ""]
    found = []
    for metric in board.metrics:
        cell = board.cell_of(rows, metric)
        words = set(board.apart[cell[cell >= 0]]) - {""}
        count = int((board.apart[cell[cell >= 0]] != "").sum())
        if count:
            rows_of = f"{count:,} row{'s' if count != 1 else ''}"
            found.append(f"{metric} in {rows_of} ({'; '.join(sorted(words))})")
    if found:
        yield (
            f"Times of several machines are never averaged (–*), in brackets what differs: {', '.join(found)}. "
            "`--by machine` gives each machine a row."
        )
