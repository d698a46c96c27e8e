"""Query network x gallery network: self-tests on the diagonal, cross-tests off it, as text and as a heat map.

Needs no torch; drawing needs matplotlib (the extra `report`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.aggregate import FOUNDATIONS
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.document import Table
from subnetbench.harness.leaderboard.foundations import HEADERS, short, warn_of_differences
from subnetbench.harness.leaderboard.frames import View, tidy, view_of
from subnetbench.harness.leaderboard.keys import KEYS
from subnetbench.harness.records.record import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a data set is ranked by besides recall: by label, Google Landmarks, revisited Oxford and Paris (Medium).
_AVERAGE_PRECISIONS = ("map", "map_at_100", "map_trapezoid")
_OVER = {"seeds": "seeds", "joint": "seeds and test items", "both": "seeds, of some pairs also over test items"}
IMAGE_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Matrix:
    """One metric of all pairs of a config's networks, largest first; where a pair was not tested, NaN.

    `mean` (n, n): row i are queries embedded by network i, column j a gallery embedded by network j. `std` (n, n) is
    over the seeds, NaN for one; `half_width` (n, n) half of each interval, which is over `interval` (`seeds` or `joint`:
    seeds and test items; both, where pairs differ), at `confidence`.
    """

    title: str
    metric: str
    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    seeds: int
    half_width: np.ndarray
    interval: str = ""
    confidence: float = 0.95

    @property
    def self_tests(self) -> np.ndarray:
        """Query and gallery by the same network, (n,)."""
        return np.diagonal(self.mean)

    @property
    def cross_tests(self) -> np.ndarray:
        """All other pairs, flat."""
        return self.mean[~np.eye(len(self.names), dtype=bool)]

    @property
    def gains(self) -> np.ndarray:
        """For each network, searching the first one's gallery minus searching its own, (n,).

        Above 0 the small network gains from the large one's gallery: the criterion of compatible learning.
        """
        return np.asarray(self.mean[:, 0] - self.self_tests)

    def table(self) -> Table:
        """Per cent, half of the interval behind it."""
        headers = ["query \\ gallery", *self.names, f"{self.names[0]} - self"]
        cells = [
            [
                name,
                *(_percent(mean, half) for mean, half in zip(self.mean[i], self.half_width[i], strict=True)),
                "" if i == 0 or np.isnan(self.gains[i]) else f"{100 * self.gains[i]:+.1f}",
            ]
            for i, name in enumerate(self.names)
        ]
        seeds = f" · {self.seeds} seeds" if self.seeds > 1 else ""
        over = f" · ± {100 * self.confidence:g} % interval over {_OVER[self.interval]}" if self.interval else ""
        title = f"{self.metric} in per cent · {self.title}{seeds}{over}"
        return Table(title, headers, [False] + [True] * (len(headers) - 1), cells)

    def summary(self) -> str:
        """The means of self- and cross-tests in one line."""
        return (
            f"mean self-test {100 * np.nanmean(self.self_tests):.1f}, "
            f"mean cross-test {100 * np.nanmean(self.cross_tests):.1f}"
        )

    def to_json(self) -> dict[str, object]:
        """Names and nested lists for JSON, None for what was not tested."""

        def plain(values: np.ndarray) -> list[list[float | None]]:
            return [[None if np.isnan(value) else float(value) for value in row] for row in values]

        return {
            "title": self.title,
            "metric": self.metric,
            "variants": list(self.names),
            "seeds": self.seeds,
            "mean": plain(self.mean),
            "std": plain(self.std),
            "half_width": plain(self.half_width),
            "interval": self.interval,
            "confidence": self.confidence,
        }


@dataclass(frozen=True)
class _Spread:
    mean: float
    std: float = float("nan")
    half_width: float = float("nan")


def default_metrics(available: Collection[str]) -> list[str]:
    """Mean average precision as the data set has it, and recall at 1."""
    return [*[name for name in _AVERAGE_PRECISIONS if name in available][:1], *({"recall_at_1"} & set(available))]


def matrices(
    paths: Path | str | Iterable[Path | str],
    metrics: Sequence[str] | None = None,
    *,
    where: str | None = None,
    split: str = "test",
) -> list[Matrix]:
    """Which network's queries find what in which network's gallery, for every config that tested several networks.

    Args:
        paths: Results folders or record files.
        metrics: The metrics to show; None: mean average precision and recall at 1.
        where: An expression that filters rows, as in `Leaderboard.frame`.
        split: The split that was scored.

    Returns:
        One matrix for each config and metric, of means over seeds; fractions, not per cent.

    Raises:
        UserError: A path or metric is not known, or no network was tested against another.

    Example:
        >>> from subnetbench.harness.leaderboard import matrices
        >>> first = matrices("tests/data/version_0_1", ["recall_at_1"])[0]
        >>> first.names
        ('student', 'teacher', 'teacher_at_student_size')
        >>> first.self_tests.round(3).tolist()
        [0.106, 0.091, nan]
    """
    board = Board(paths)
    board.records.warn()
    found = matrices_of_board(board, metrics, where=where, split=split)
    if not found:
        raise UserError("no network was tested against another in these runs", field="RUNS", value=_named(paths))
    return found


def _named(paths: Path | str | Iterable[Path | str]) -> str:
    return " ".join(map(str, [paths] if isinstance(paths, Path | str) else paths))


def matrices_of_board(
    board: Board, metrics: Sequence[str] | None = None, *, where: str | None = None, split: str = "test"
) -> list[Matrix]:
    """The matrices of all configs in which networks are tested against each other, config by config.

    Without `metrics`, those of `default_metrics`. Raises `UserError` for a metric of which there is no value.
    """
    metrics = metrics or default_metrics(board.metrics)
    wanted = [*metrics, *(["capacity"] if "capacity" in board.metrics else [])]
    view = View(wanted, where, (split,), by_run=True)
    frame = tidy(board, view)
    warn_of_differences(board, view_of(board, view)[0])
    group = [key for key in KEYS if key not in ("variant", "gallery_variant")]
    several = {name: frame.groupby("method")[name].nunique() > 1 for name in FOUNDATIONS}
    apart = {name: set(counts.index[counts]) for name, counts in several.items()}
    found = []
    for _, rows in frame.groupby(group, sort=False):
        if (rows["variant"] == rows["gallery_variant"]).all():
            continue
        first = rows.iloc[0]
        title = " · ".join(str(first[key]) for key in ("method", "dataset", "network", "config", "split") if first[key])
        title += "".join(
            f" · {HEADERS.get(n, n)} {short(n, [first[n]])[0]}" for n in apart if first["method"] in apart[n]
        )
        sizes = dict(rows.loc[rows["metric"] == "capacity", ["variant", "mean"]].to_numpy().tolist())
        for metric in metrics:
            part = rows[rows["metric"] == metric]
            pairs = {
                (str(row.variant), str(row.gallery_variant)): _Spread(
                    cast(float, row.mean), cast(float, row.std), (cast(float, row.high) - cast(float, row.low)) / 2
                )
                for row in part.itertuples()
                if row.gallery_variant
            }
            kinds = sorted(set(part["interval"]) - {""})
            if pairs:
                matrix = _matrix(title, metric, pairs, sizes, int(part["seeds"].max()))
                over = "both" if len(kinds) > 1 else "".join(kinds)
                found.append(replace(matrix, interval=over, confidence=board.confidence))
    return found


def matrices_of_scores(scores: Iterable[Score], title: str, metrics: Sequence[str] | None = None) -> list[Matrix]:
    """The matrices of one evaluation; none where every network was only tested with itself."""
    scores = list(scores)
    sizes = {score.variant: score.value for score in scores if score.metric == "capacity"}
    found = []
    for metric in metrics or default_metrics({score.metric for score in scores}):
        pairs = {
            (s.variant, s.gallery_variant): _Spread(s.value) for s in scores if s.metric == metric and s.gallery_variant
        }
        if any(query != gallery for query, gallery in pairs):
            found.append(_matrix(title, metric, pairs, sizes, 1))
    return found


def draw(matrices: Sequence[Matrix], path: Path) -> None:
    """Draw heat maps side by side into a PNG, SVG or PDF file. Raises `UserError` without matplotlib."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError("no such kind of image", field="path", value=str(path), allowed=", ".join(IMAGE_SUFFIXES))
    if not matrices:
        raise UserError("there is nothing to draw: no network was tested against another", field="path")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("drawing needs matplotlib: install subnetbench[report]", field="path") from None
    largest = max(len(matrix.names) for matrix in matrices)
    figure = Figure(figsize=((1.8 + 0.9 * largest) * len(matrices), 1.6 + 0.75 * largest), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, matrix in zip(axes, matrices, strict=True):
        _heat_map(axis, matrix)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", field="path", value=str(path)) from None


def _heat_map(axis: "Axes", matrix: Matrix) -> None:
    values = 100 * matrix.mean
    image = axis.imshow(values, cmap="viridis")
    ticks = range(len(matrix.names))
    axis.set_xticks(ticks, matrix.names, rotation=45, ha="right")
    axis.set_yticks(ticks, matrix.names)
    axis.set_xlabel("gallery")
    axis.set_ylabel("query")
    axis.set_title(f"{matrix.metric} (%)\n{matrix.title}", fontsize=8)
    for i in ticks:
        for j in ticks:
            if not np.isnan(values[i, j]):
                red, green, blue, _ = image.cmap(image.norm(values[i, j]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                text = f"{values[i, j]:.1f}"
                axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)


def _matrix(
    title: str,
    metric: str,
    pairs: Mapping[tuple[str, str], _Spread],
    sizes: Mapping[str, float],
    seeds: int,
) -> Matrix:
    """The pairs as arrays, the largest network first; networks of unknown size keep their order."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    names.sort(key=lambda name: -sizes.get(name, 0.0))
    mean = np.full((len(names), len(names)), np.nan)
    std, half_width = mean.copy(), mean.copy()
    for (query, gallery), spread in pairs.items():
        at = names.index(query), names.index(gallery)
        mean[at], std[at], half_width[at] = spread.mean, spread.std, spread.half_width
    return Matrix(title, metric, tuple(names), mean, std, seeds, half_width)


def _percent(mean: float, half_width: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" if np.isnan(half_width) else f"{100 * mean:.1f} ± {100 * half_width:.1f}"
