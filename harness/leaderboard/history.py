"""Over time: each row of a leaderboard once for each version of the code that measured it, and what changed since.

A version is a commit, with or without changes that were not committed, or the digest of the source of method and data
set. Each version has a board of its own, so that no run of an earlier one is superseded by a later one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError, check_names, unknown
from subnetbench.harness.leaderboard.aggregate import FOUNDATIONS
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.compare_settings import Settings
from subnetbench.harness.leaderboard.curves import Line
from subnetbench.harness.leaderboard.foundations import HEADERS
from subnetbench.harness.leaderboard.frames import filtered
from subnetbench.harness.leaderboard.keys import KEYS
from subnetbench.harness.leaderboard.matching import Side
from subnetbench.harness.leaderboard.row_tests import judge, lines_of
from subnetbench.harness.records.read import RecordSet, read_records

By = Literal["commit", "code"]
LINE = tuple(name for name in KEYS if name not in FOUNDATIONS)
"""What stays the same along a line of a history."""
CHANGES = ("change", "change_low", "change_high", "p_corrected", "verdict")
"""What a point has beside the one before it: b - a with its interval, p after Holm's correction, and the verdict."""
_UNKNOWN = "unknown"
_SHOWN = 6


@dataclass(frozen=True)
class History:
    """Metrics by version of the code.

    `frame` has one line for each row, metric and version, in the order of time: what stays the same (`LINE`, `config`),
    `metric`, `version` (counted from 1 along its line), `commit` (with + where there were changes that were not
    committed), `code_digest`, `first` and `last` (ends of its runs, UTC), `mean`, `low`, `high`, `seeds`, `failed`,
    `CHANGES` since the version before, `also` (what else differs from it: files, numerics, libraries, device, ...),
    and `run_ids`.
    """

    frame: pd.DataFrame
    confidence: float
    notes: list[str]

    @property
    def changed(self) -> pd.DataFrame:
        """The versions in which a metric changed significantly."""
        return self.frame[self.frame["verdict"].isin(["worse", "better", "changed"])]


def lines_of_history(found: History) -> list[Line]:
    """One line for each row and metric over the numbers of its versions, for drawing."""
    lines = []
    for _, part in found.frame.groupby([*LINE, "metric"], sort=False):
        one = part.iloc[0]
        words = [str(one[name]) for name in ("dataset", "method", "variant", "gallery_variant", "config") if one[name]]
        mean, half = part["mean"].to_numpy(), (part["high"] - part["mean"]).to_numpy()
        numbers = part["version"].to_numpy(np.float64)
        lines.append(Line(" ".join(words), str(one["metric"]), numbers, mean, half, np.full(len(part), np.nan)))
    return lines


@dataclass(frozen=True)
class _Version:
    """The rows that runs of one version gave, each with the times of its first and last run."""

    side: Side
    commit: str

    def times(self, runs: np.ndarray) -> tuple[pd.Timestamp, pd.Timestamp]:
        ends = self.side.board.records.runs["finished_at"].take(runs).to_pandas()
        return ends.min(), ends.max()


def history(
    paths: Path | str | Iterable[Path | str],
    metrics: Sequence[str] | None = None,
    *,
    where: str | None = None,
    splits: Sequence[str] | None = ("test",),
    by: By = "commit",
    confidence: float = 0.95,
) -> History:
    """How metrics changed from version to version of the code.

    Args:
        paths: Results folders or record files.
        metrics: Metrics to follow; None: the primary ones.
        where: An expression that filters rows, as in `Leaderboard.frame`.
        splits: Splits to follow; None: all.
        by: `commit`, or `code`: the digest of the source of method and data set, by which commits that changed neither
            are one version.
        confidence: Confidence of the intervals, and 1 - level of all tests of changes together, by Holm's correction.

    Raises:
        UserError: A path or a name is not known, or nothing is recorded of a metric.
    """
    check_names(metrics, "metrics")
    if by not in get_args(By):
        raise UserError("no such version", field="by", value=by, allowed=", ".join(get_args(By)))
    records = read_records(paths)
    whole = Board.from_records(records, confidence=confidence)
    names = _metrics(whole, metrics)
    if where is not None:
        filtered(whole, whole.rows, where)
    labels = dict(zip(whole.runs.groups["config_hash"], whole.config_labels, strict=True))
    versions = list(_versions(records, by, where, splits, confidence))
    points = [point for at, version in enumerate(versions) for point in _points(version, at, names)]
    if not points:
        raise UserError("no finished run has a value of this", field="metrics", value=", ".join(names))
    frame = pd.DataFrame(points).sort_values([*LINE, "metric", "first", "last"], kind="stable", ignore_index=True)
    frame["config"] = [labels.get(value, "") for value in frame["config_hash"]]
    frame["version"] = frame.groupby([*LINE, "metric"], sort=False).cumcount() + 1
    frame = _with_changes(frame, versions, Settings(confidence=confidence))
    notes = [*records.left_out(), *_notes(frame, by, confidence), *_not_shown(versions, where)]
    ordered = [*LINE, "config", "metric", "version", "commit", "code_digest", "first", "last", "mean", "low", "high"]
    return History(frame[[*ordered, "seeds", "failed", *CHANGES, "also", "run_ids"]], confidence, notes)


def _metrics(board: Board, metrics: Sequence[str] | None) -> list[str]:
    primary = board.records.runs["primary_metric"].unique().to_pylist()
    for name in metrics or ():
        if name not in board.metrics:
            raise unknown("metric", name, board.metrics)
    return list(dict.fromkeys(metrics or (name for name in sorted(primary) if name in board.metrics)))


def _versions(
    records: RecordSet, by: By, where: str | None, splits: Sequence[str] | None, confidence: float
) -> Iterator[_Version]:
    runs = records.runs.select(["git_sha", "git_dirty", "code_digest"]).to_pandas().astype({"git_dirty": bool})
    commits = runs["git_sha"].astype(str).replace("", _UNKNOWN) + np.where(runs["git_dirty"], "+", "")
    keys = commits if by == "commit" else runs["code_digest"].astype(str)
    for key, members in keys.groupby(keys, sort=False).indices.items():
        keep = np.zeros(len(keys), bool)
        keep[members] = True
        board = Board.from_records(records.only(keep), confidence=confidence)
        rows = board.rows if splits is None else board.rows[board.rows["split"].isin(list(splits))]
        if where is not None:
            try:
                rows = filtered(board, rows, where)
            except UserError:  # known to the whole board: no run of this version has the metric or the field
                continue
        of_key = list(dict.fromkeys(commits[members]))
        more = f" and {len(of_key) - 1} more" if len(of_key) > 1 else ""
        yield _Version(Side(board, rows.reset_index(drop=True)), str(key) if by == "commit" else of_key[0] + more)


def _points(version: _Version, at: int, metrics: Sequence[str]) -> Iterator[dict[str, object]]:
    board, rows = version.side.board, version.side.rows
    for metric in metrics:
        cell = board.cell_of(rows, metric)
        for row in np.flatnonzero(cell >= 0):
            own = int(cell[row])
            runs = board.cells.runs[board.cells.part(own)]
            mean, half = float(board.cells.mean[own]), float(board.half_widths[own])
            first, last = version.times(runs)
            line = rows.iloc[row]
            yield {
                **{name: line[name] for name in (*LINE, *FOUNDATIONS)},
                "metric": metric,
                "commit": version.commit,
                "first": first,
                "last": last,
                "mean": mean,
                "low": mean - half,
                "high": mean + half,
                "seeds": len(runs),
                "failed": int(line["failed"]),
                "run_ids": tuple(board.run_ids[runs]),
                "_stands_on": {name: {*part.decode(runs)} for name, part in board.machines.parts.items()},
                "_version": at,
                "_row": int(row),
            }


def _with_changes(frame: pd.DataFrame, versions: Sequence[_Version], settings: Settings) -> pd.DataFrame:
    """Test each version of a line against the one before, all tests corrected together."""
    frame = frame.assign(**dict.fromkeys(CHANGES[:-1], np.nan), verdict="", also="")
    steps = [
        step for members in frame.groupby([*LINE, "metric"], sort=False).indices.values() for step in pairwise(members)
    ]
    if not steps:
        return frame
    before, after = (frame.iloc[[step[i] for step in steps]].reset_index(drop=True) for i in (0, 1))
    also = [_also(one, other) for (_, one), (_, other) in zip(before.iterrows(), after.iterrows(), strict=True)]
    tested, owners = [], []
    keys = pd.DataFrame({"a": before["_version"], "b": after["_version"], "metric": before["metric"]})
    for members in keys.groupby(["a", "b", "metric"], sort=False).indices.values():
        a, b, metric = keys.iloc[int(members[0])]
        for member in members:  # one by one: what cannot be compared gives no line
            pair = (before["_row"].to_numpy()[[member]], after["_row"].to_numpy()[[member]])
            lines, _ = lines_of(versions[a].side, versions[b].side, pair, metric, settings)
            tested.append(lines)
            owners += [steps[member][1]] * len(lines)
    lines = judge(pd.concat(tested, ignore_index=True), settings)
    lines["verdict"] = lines["verdict"].replace("worse beyond margin", "worse")
    names = {"change": "difference", "change_low": "low", "change_high": "high"}
    for name in CHANGES:
        frame.loc[owners, name] = lines[names.get(name, name)].to_numpy()
    frame.loc[[step[1] for step in steps], "also"] = also
    return frame


def _also(before: pd.Series, after: pd.Series) -> str:
    """What else than the code differs between two points."""
    words = [HEADERS.get(name, name) for name in FOUNDATIONS if name != "code_digest" and before[name] != after[name]]
    one, other = before["_stands_on"], after["_stands_on"]
    return ", ".join([*words, *(name for name in one if one[name] != other[name])])


def _not_shown(versions: Sequence[_Version], where: str | None) -> Iterator[str]:
    """What no point stands for: configs of which no run of a version finished, and runs that later ones replaced."""
    words: dict[str, int] = {}
    for version in versions:
        board = version.side.board
        rows = board.rows if where is None else filtered(board, board.rows, where)
        lost = rows[(rows["seeds"] == 0) & (rows["failed"] > 0)].drop_duplicates("group")
        for method, dataset, failed in lost[["method", "dataset", "failed"]].to_numpy().tolist():
            word = f"{method} on {dataset} at {version.commit.partition(' ')[0][:10]}"
            words[word] = words.get(word, 0) + failed
    if words:
        listed = [f"{word} ({count} failed)" for word, count in words.items()]
        more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
        yield f"Not shown, because no run of that version finished: {', '.join(listed[:_SHOWN])}{more}."
    if replaced := sum(version.side.board.tally.superseded for version in versions):
        yield f"{replaced:,} runs are replaced by later ones of the same version, config and seed."


def _notes(frame: pd.DataFrame, by: By, confidence: float) -> Iterator[str]:
    tests = int(frame["p_corrected"].notna().sum())
    yield (
        f"Intervals are at {100 * confidence:g} % over seeds. Changes are against the version before, paired by seed where "
        f"at least two seeds match; p is corrected by Holm over {_many(tests, 'change')}."
    )
    if others := int((frame["also"] != "").sum()):
        yield f"{_many(others, 'change')} not of the code alone: column `also` says what else differs."
    if unknowns := int(
        (frame["commit"].str.startswith(_UNKNOWN) if by == "commit" else frame["code_digest"] == "").sum()
    ):
        what = "commit" if by == "commit" else "code"
        yield f"{_many(unknowns, 'point')} of unknown {what}, which {'counts' if unknowns == 1 else 'count'} as one version."
    if dirty := int(frame["commit"].str.contains("+", regex=False).sum()):
        yield f"{_many(dirty, 'point')} of commits with changes that were not committed (+)."


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
