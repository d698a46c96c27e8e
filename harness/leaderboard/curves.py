"""Metrics against one numeric field of the configs of a sweep: masked share, capacity, image size, learning rate.

Needs no torch; `subnetbench.harness.report.curves` draws what is found here.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from subnetbench.harness.errors import UserError
from subnetbench.harness.leaderboard import configs
from subnetbench.harness.leaderboard.aggregate import CIRCUMSTANCES, IDENTITY
from subnetbench.harness.leaderboard.frames import View, view_of

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard

_SEED = re.compile(r"(inputs\.\w+\.(\d+\.)?)*seed")
_SAME = tuple(name for name in (*IDENTITY, *CIRCUMSTANCES) if name not in ("config_hash", "budget"))


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

    def as_dict(self) -> dict[str, Any]:
        """For JSON: names and lists, None for what is not known."""

        def plain(array: np.ndarray) -> list[float | None]:
            return [float(value) if np.isfinite(value) else None for value in array]

        return {name: plain(value) if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def lines_of_board(
    board: "Leaderboard", against: str, metrics: Sequence[str], *, where: str | None = None, split: str = "test"
) -> list[Line]:
    """The lines of all metrics, one for each variant and setting of everything else; single points are no line.

    `against` is a config field of method or data, `lr` or in full `config.lr`: the run's own or, where it has none, that
    of a run it starts from (the masked share of a cascade's level). The board must have been made of whole records, as
    `Leaderboard.from_records(read_records(...))` does. Raises `UserError` where the field is ambiguous or nothing
    varies with it.
    """
    rows, figures = view_of(board, View(list(metrics), where, (split,)))
    rows = rows.reset_index(drop=True)
    specs = {group: _spec(board, group) for group in rows["group"].unique()}
    found = {group: _field(spec, against) for group, spec in specs.items()}
    has = np.flatnonzero(rows["group"].map(found).notna() & (rows["split"] == split))
    if not len(has):
        raise UserError("no run that is shown has such a number in its config", field="--against", value=against)
    rest = {
        group: {path: leaf for path, leaf in specs[group].items() if path not in at[1]}
        for group, at in found.items()
        if at is not None
    }
    families: dict[Any, list[int]] = {}
    for at in has:
        row = rows.iloc[at]
        of_data = any(path.startswith("data.") for path in found[row["group"]][1])  # type: ignore[index]
        same = [row[name] for name in _SAME if not (of_data and name == "data_digest")]
        key = (*same, row["variant"], row["gallery_variant"], json.dumps(rest[row["group"]]))
        families.setdefault(key, []).append(int(at))
    names = _names(rows, [members[0] for members in families.values()], rest)
    lines = []
    for figure in figures:
        for name, members in zip(names, families.values(), strict=True):
            values = {at: found[rows["group"].iloc[at]][0] for at in members if figure.cell[at] >= 0}  # type: ignore[index]
            places = np.array(sorted(values, key=values.__getitem__), dtype=np.int64)
            if len(set(values.values())) > 1:
                x = np.array([values[at] for at in places.tolist()])
                own = (array[places] for array in (figure.mean, figure.half_width, figure.trivial))
                lines.append(Line(name, figure.metric, x, *own))
    if not lines:
        raise UserError("has one value only in the runs that are shown", field="--against", value=against)
    return lines


def _spec(board: "Leaderboard", group: int) -> dict[str, Any]:
    """The leaves of the spec of a group's runs by dotted path, runs they start from included, without seeds."""
    record = int(np.flatnonzero(board.runs.group == group)[0])
    try:
        leaves = dict(_leaves(json.loads(board.records.runs["spec_json"][record].as_py()), ""))
    except (ValueError, TypeError, RecursionError):
        leaves = {}
    leaves = leaves or board.config(group)
    return {path: leaf for path, leaf in leaves.items() if not _SEED.fullmatch(path)}


def _leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """Leaves by path; lists of inputs are numbered, other lists are leaves."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        inner = enumerate(value)
    else:
        yield path, json.dumps(value) if isinstance(value, list | dict) else value
    for key, item in inner:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _field(leaves: Mapping[str, Any], name: str) -> tuple[float, set[str]] | None:
    """The number in the field that is meant, and its paths; None where there is none."""
    numbers = {
        path: leaf for path, leaf in leaves.items() if isinstance(leaf, int | float) and not isinstance(leaf, bool)
    }
    for path in (name, f"config.{name}", f"data.{name}"):
        if path in leaves:
            return (float(numbers[path]), {path}) if path in numbers else None
    ending = f".config.{name.removeprefix('config.')}"
    nested = {path: float(leaf) for path, leaf in numbers.items() if path.endswith(ending)}
    if len(set(nested.values())) > 1:
        raise UserError(
            "several of the runs that a run starts from have one: name it in full",
            field="--against",
            value=name,
            allowed=", ".join(nested),
        )
    return (next(iter(nested.values())), set(nested)) if nested else None


def _names(rows: pd.DataFrame, places: Sequence[int], rest: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """What to call each line: method and variant, and what else tells it from the others of the same name."""
    names = []
    for at in places:
        row = rows.iloc[at]
        gallery = row["gallery_variant"] if row["gallery_variant"] != row["variant"] else ""
        names.append(" ".join(filter(None, (row["method"], row["variant"], gallery and f"in {gallery}"))))
    full = list(names)
    for name in set(names):
        alike = [i for i, other in enumerate(names) if other == name]
        settings = configs.labels([rest[rows["group"].iloc[places[i]]] for i in alike])
        for i, setting in zip(alike, settings, strict=True):
            full[i] = f"{name} ({setting})" if setting else name
    return full
