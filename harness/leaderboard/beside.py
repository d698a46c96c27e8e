"""Published values beside measured ones: where both are of the same thing under the same conditions, the difference;
where the conditions are others, or are not known, why the two cannot be compared."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.published import PublishedValue, Stated, Verified

SPARSITY_TOLERANCE = 0.01

_TRUST: dict[Verified | None, int] = {True: 0, "quoted": 1, "from memory": 2, False: 3}
_SAME_THING = ("task", "method", "network", "variant", "gallery_variant")
_EPOCHS = re.compile(r"(\d[\d,]*) epochs?\b")
_IMAGES = re.compile(r"(\d[\d,]*) images\b")
_SIZES = ("config.image_size", "data.image_size", "data.size")
_NO_TRAINING = "none of its own"


@dataclass(frozen=True)
class Beside:
    """A published value beside what was measured of the same thing; `row` is an index into the rows shown.

    They are `comparable` where data set, split, protocol and budget agree (epochs, training images, image size); else
    `reason` says which of them differ, or are not known of its source, and there is no difference.
    """

    row: int
    method: str
    dataset: str
    network: str
    variant: str
    config: str
    metric: str
    label: str
    measured: float
    half_width: float | None
    """None for one seed."""
    published: float
    low: float
    high: float
    difference: float | None
    """measured - published; None where they are not comparable."""
    comparable: bool
    reason: str
    verified: Verified | None
    source: str
    citation: str
    note: str


@dataclass(frozen=True)
class PublishedLines:
    """All published values that belong to some rows, comparable ones first, and what was left out."""

    lines: list[Beside]
    notes: list[str]

    @property
    def comparable(self) -> list[Beside]:
        return [line for line in self.lines if line.comparable]

    @property
    def others(self) -> list[Beside]:
        """Those that cannot be compared with what was measured."""
        return [line for line in self.lines if not line.comparable]


def beside(
    board: Board, rows: pd.DataFrame, metrics: Sequence[str], published: Sequence[PublishedValue]
) -> PublishedLines:
    """Published beside measured: one line for each pair of a row and a published value of the same thing.

    A value is of the same thing as a row that agrees in method, data set, metric, and in every field out of task,
    network, variants, config, and sparsity (within 0.01) that the value states.
    """
    sparsity = np.append(board.cells.mean, np.nan)[board.cell_of(rows, "sparsity")]
    known = _Conditions(board, rows)
    lines: list[Beside] = []
    elsewhere: Counter[str] = Counter()
    hidden = 0
    for metric in metrics:
        cell = board.cell_of(rows, metric)
        for value in published:
            stated = value.stated
            if stated.metric != metric or not stated.method:
                continue
            same = (cell >= 0) & _same_thing(board, rows, stated, sparsity)
            here = same & (rows["dataset"] == stated.dataset).to_numpy()
            if not value.shown:
                hidden += bool(here.any())
            elif same.any() and not here.any():
                elsewhere[stated.dataset or "no data set that is named"] += 1
            else:
                lines += [_line(board, rows, int(at), int(cell[at]), value, known) for at in np.flatnonzero(here)]
    lines.sort(key=lambda line: (not line.comparable, line.row, line.metric, _TRUST[line.verified]))
    return PublishedLines(lines, list(_notes(elsewhere, hidden)))


def _notes(elsewhere: Counter[str], hidden: int) -> Iterator[str]:
    if hidden:
        plural = "s" if hidden > 1 else ""
        yield f"{hidden:,} published value{plural} of these rows left out: entered from memory (--from-memory shows them)."
    if elsewhere:
        names = ", ".join(f"{name} {count:,}" for name, count in sorted(elsewhere.items()))
        yield f"{elsewhere.total():,} published values of these methods are on other data: {names}."


def _same_thing(board: Board, rows: pd.DataFrame, wanted: Stated, sparsity: np.ndarray) -> np.ndarray:
    agrees = np.ones(len(rows), bool)
    for name in _SAME_THING:
        if value := getattr(wanted, name):
            agrees &= (rows[name] == value).to_numpy()
    if wanted.sparsity is not None:
        agrees &= np.abs(sparsity - wanted.sparsity) <= SPARSITY_TOLERANCE
    if wanted.config:
        # Lists are leaves of a flat config, and stand there as JSON.
        values = {name: json.dumps(v) if isinstance(v, list) else v for name, v in wanted.config.items()}
        for at in np.flatnonzero(agrees):
            config = board.config(int(rows["group"].iloc[at]))
            agrees[at] = all(config.get(f"config.{name}", config.get(name)) == v for name, v in values.items())
    return agrees


class _Conditions:
    """Under which conditions rows were measured, each row looked at once."""

    def __init__(self, board: Board, rows: pd.DataFrame) -> None:
        self._board, self._rows = board, rows
        self._known: dict[int, tuple[int | None, int | None, int | str, int | None]] = {}

    def differences(self, at: int, stated: Stated) -> Iterator[str]:
        """Why a value is not comparable with a row, in words; none where it is."""
        row = self._rows.iloc[at]
        if not stated.comparable:
            yield stated.note or "its protocol is another one"
        yield from _differs("split", stated.split or "test", row["split"])
        yield from _differs("protocol", stated.protocol, row["protocol"])
        epochs, images, size, limit = self._budget(at)
        if limit is not None:
            yield f"limit_steps {limit} cuts its epochs here"
        yield from _differs("epochs", stated.epochs, epochs)
        if stated.epochs != 0:  # nothing is trained
            yield from _differs("training images", stated.images, images)
            yield from _differs("image size", stated.image_size, size)

    def _budget(self, at: int) -> tuple[int | None, int | None, int | str, int | None]:
        """Epochs and training images as the budget says, image size (`native`: as the data has them), limit of steps."""
        if at not in self._known:
            budget = str(self._rows["budget"].iloc[at])
            config = self._board.config(int(self._rows["group"].iloc[at]))
            epochs = 0 if budget.startswith(_NO_TRAINING) else _number(_EPOCHS, budget)
            size = next((config[name] for name in _SIZES if config.get(name) is not None), "native")
            limit = config.get("config.limit_steps")
            size = int(size) if isinstance(size, int | float) else str(size)
            self._known[at] = (
                *(epochs, _number(_IMAGES, budget), size),
                int(limit) if isinstance(limit, int | float) else None,
            )
        return self._known[at]


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1].replace(",", "")) if found else None


def _differs(name: str, stated: int | str | None, here: int | str | None) -> Iterable[str]:
    if stated in ("", None):
        return [f"{name} of the source not known"]
    if here in ("", None):
        return [f"{name}: {stated} there, not known here"]
    return [] if stated == here else [f"{name}: {stated} there, {here} here"]


def _half_width(board: Board, metric: str, cell: int) -> float:
    return float(board.intervals.of(metric, np.array([cell])).half[0])


def _line(
    board: Board, rows: pd.DataFrame, at: int, cell: int, value: PublishedValue, conditions: _Conditions
) -> Beside:
    row, stated, measured = rows.iloc[at], value.stated, float(board.cells.mean[cell])
    reasons = list(conditions.differences(at, stated))
    return Beside(
        row=at,
        **{name: str(row[name]) for name in ("method", "dataset", "network", "variant", "config")},
        metric=stated.metric,
        label=stated.label,
        measured=measured,
        half_width=half if np.isfinite(half := _half_width(board, stated.metric, cell)) else None,
        published=value.value,
        low=value.low,
        high=value.high,
        difference=None if reasons else measured - value.value,
        comparable=not reasons,
        reason="; ".join(reasons),
        verified=stated.verified,
        source=stated.source,
        citation=value.citation,
        note=stated.note,
    )
