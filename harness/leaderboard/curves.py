"""Metrics against one numeric field of the configs of a sweep: masked share, capacity, image size, learning rate.

Needs no torch; `subnetbench.harness.report.curves` draws what is found here.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.aggregate import FOUNDATIONS, GROUP
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.configs import Config, Leaf
from subnetbench.harness.leaderboard.foundations import HEADERS, short, warn_of_differences
from subnetbench.harness.leaderboard.frames import View, view_of
from subnetbench.harness.records.read import read_records

_SEED = re.compile(r"(inputs\.\w+\.(\d+\.)?)*seed")
_SAME = tuple(name for name in GROUP if name not in ("config_hash", "budget", "files_digest", "numerics", "spending"))


@dataclass(frozen=True)
class Line:
    """One metric of the rows that differ in nothing but the field, by ascending values of it: all arrays (points,).

    `half` is half the width of the interval over seeds (NaN for one seed); `trivial` is NaN where none is known.
    """

    name: str
    metric: str
    values: np.ndarray
    mean: np.ndarray
    half: np.ndarray
    trivial: np.ndarray

    def to_json(self) -> dict[str, object]:
        """Names and lists for JSON, None for what is not known."""

        def plain(array: np.ndarray) -> list[float | None]:
            return [float(value) if np.isfinite(value) else None for value in array]

        return {name: plain(value) if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def curves(
    paths: Path | str | Iterable[Path | str],
    against: str,
    metrics: Sequence[str] | None = None,
    *,
    where: str | None = None,
    split: str = "test",
    confidence: float = 0.95,
) -> list[Line]:
    """How metrics change with one numeric field of the configs, all else equal.

    Args:
        paths: Results folders or record files.
        against: A config field of method or data, such as `lr` or in full `config.lr`: the run's own or, where it has
            none, that of a run it starts from.
        metrics: One group of lines each; None: the metric that ranks the task.
        where: An expression that filters rows, as in `Leaderboard.frame`.
        split: The split that was scored.
        confidence: Confidence of the intervals over seeds.

    Returns:
        A line for each metric, variant and setting of everything else.

    Raises:
        UserError: A path or name is not known, the field is ambiguous, or nothing varies with it.
    """
    board = Board.from_records(read_records(paths), confidence=confidence, interval="seeds")
    board.records.warn()
    return lines_of_board(board, against, metrics or board.default_metrics[:1], where=where, split=split)


def lines_of_board(
    board: Board, against: str, metrics: Sequence[str], *, where: str | None = None, split: str = "test"
) -> list[Line]:
    """The lines of all metrics, one for each variant and setting of everything else; single points are no line.

    Args:
        board: Made of whole records, as `Leaderboard.from_records(read_records(...))` does.
        against: A config field of method or data, such as `lr` or in full `config.lr`: the run's own or, where it has
            none, that of a run it starts from (the masked share of a cascade's level).
        metrics: One group of lines each.
        where: An expression that filters rows, as in `Leaderboard.frame`.
        split: The split that was scored.

    Raises:
        UserError: The field is ambiguous, or nothing varies with it.
    """
    rows, columns = view_of(board, View(list(metrics), where, (split,)))
    warn_of_differences(board, rows)
    rows = rows.reset_index(drop=True)
    specs = {int(group): _spec(board, int(group)) for group in rows["group"].unique()}
    found = {group: field for group, spec in specs.items() if (field := _field(spec, against)) is not None}
    has = np.flatnonzero(rows["group"].isin(list(found)) & (rows["split"] == split))
    if not len(has):
        raise UserError("no run that is shown has such a number in its config", field="--against", value=against)
    groups = rows["group"].to_numpy()
    rest = {
        group: {path: leaf for path, leaf in specs[group].items() if path not in field.paths}
        for group, field in found.items()
    }
    families = _families(rows, has, found, rest)
    names = _names(rows, [members[0] for members in families], rest)
    lines = []
    for column in columns:
        for name, members in zip(names, families, strict=True):
            values = {at: found[int(groups[at])].value for at in members if np.isfinite(column.mean[at])}
            if len(set(values.values())) > 1:
                order = np.array(sorted(values, key=values.__getitem__), dtype=np.int64)
                x = np.array([values[at] for at in order.tolist()])
                own = (array[order] for array in (column.mean, column.half_width, column.trivial))
                lines.append(Line(name, column.metric, x, *own))
    if not lines:
        raise UserError("has one value only in the runs that are shown", field="--against", value=against)
    return lines


@dataclass(frozen=True)
class _Field:
    """The number that is drawn against, and the paths in a spec that hold it."""

    value: float
    paths: frozenset[str]


def _families(
    rows: pd.DataFrame, has: np.ndarray, found: Mapping[int, _Field], rest: Mapping[int, Config]
) -> list[list[int]]:
    """The rows that differ in nothing but the field, as lists of indices."""
    families: dict[tuple[object, ...], list[int]] = {}
    for at in has:
        row = rows.iloc[at]
        of_data = any(path.startswith("data.") for path in found[row["group"]].paths)
        same = [row[name] for name in _SAME if not (of_data and name == "data_digest")]
        key = (*same, row["variant"], row["gallery_variant"], json.dumps(rest[row["group"]]))
        families.setdefault(key, []).append(int(at))
    parts = []
    for members in families.values():
        # Files and numerics may follow from the field; where they do not, its values repeat.
        repeat = len({found[rows["group"].iloc[at]].value for at in members}) < len(members)
        apart = [(rows["files_digest"].iloc[at], rows["numerics"].iloc[at]) if repeat else () for at in members]
        parts += [[at for at, own in zip(members, apart, strict=True) if own == one] for one in dict.fromkeys(apart)]
    return parts


def _spec(board: Board, group: int) -> Config:
    """The leaves of the spec of a group's runs by dotted path, runs they start from included, without seeds."""
    record = int(np.flatnonzero(board.runs.group == group)[0])
    try:
        leaves = dict(_leaves(json.loads(board.records.runs["spec_json"][record].as_py()), ""))
    except (ValueError, TypeError, RecursionError):
        leaves = {}
    known = leaves or board.config(group)
    return {path: leaf for path, leaf in known.items() if not _SEED.fullmatch(path)}


def _leaves(value: object, path: str) -> Iterable[tuple[str, Leaf]]:
    """Leaves by path; lists of inputs are numbered, other lists are leaves."""
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        inner = enumerate(value)
    else:
        yield path, configs.as_leaf(value)
    for key, item in inner:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _field(leaves: Config, name: str) -> _Field | None:
    """The number in the field that is meant, and its paths; None where there is none."""
    numbers = {
        path: leaf for path, leaf in leaves.items() if isinstance(leaf, int | float) and not isinstance(leaf, bool)
    }
    for path in (name, f"config.{name}", f"data.{name}"):
        if path in leaves:
            return _Field(float(numbers[path]), frozenset([path])) if path in numbers else None
    suffix = f".config.{name.removeprefix('config.')}"
    nested = {path: float(leaf) for path, leaf in numbers.items() if path.endswith(suffix)}
    if len(set(nested.values())) > 1:
        raise UserError(
            "several of the runs that a run starts from have one: name it in full",
            field="--against",
            value=name,
            allowed=", ".join(nested),
        )
    return _Field(next(iter(nested.values())), frozenset(nested)) if nested else None


def _names(rows: pd.DataFrame, indices: Sequence[int], rest: Mapping[int, Config]) -> list[str]:
    """What to call each line: method and variant, and where it differs from the others of the same name."""
    names = []
    for at in indices:
        row = rows.iloc[at]
        gallery = row["gallery_variant"] if row["gallery_variant"] != row["variant"] else ""
        names.append(" ".join(filter(None, (row["method"], row["variant"], gallery and f"in {gallery}"))))
    full = list(names)
    for name in set(names):
        alike = [i for i, other in enumerate(names) if other == name]
        settings = configs.labels([rest[rows["group"].iloc[indices[i]]] for i in alike])
        stands_on = _foundations(rows.iloc[[indices[i] for i in alike]])
        for i, *words in zip(alike, settings, stands_on, strict=True):
            setting = ", ".join(filter(None, words))
            full[i] = f"{name} ({setting})" if setting else name
    return full


def _foundations(rows: pd.DataFrame) -> list[str]:
    """For each row in which code, files and numerics it differs from the others."""
    words = [
        [f"{HEADERS.get(name, name)} {value}" for value in short(name, rows[name])]
        for name in FOUNDATIONS
        if rows[name].nunique() > 1
    ]
    return [", ".join(line) for line in zip(*words, strict=True)] if words else [""] * len(rows)
