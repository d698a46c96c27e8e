"""Query network x gallery network: self-tests on the diagonal, cross-tests off it, as text and as a heat map.

Needs no torch; drawing needs matplotlib (the extra `report`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from subnetbench.harness.errors import UserError
from subnetbench.harness.leaderboard.tables import Table

if TYPE_CHECKING:
    from subnetbench.harness.leaderboard.board import Leaderboard
    from subnetbench.harness.records import Score

# What a data set is ranked by besides recall: by label, Google Landmarks, revisited Oxford and Paris (Medium).
_AVERAGE_PRECISIONS = ("map", "map_at_100", "map_trapezoid")
IMAGE_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Matrix:
    """One metric of all pairs of a config's networks, largest first; where a pair was not tested, NaN.

    `mean` (n, n): row i are queries embedded by network i, column j a gallery embedded by network j. `std` (n, n) is
    over the seeds, NaN for one.
    """

    title: str
    metric: str
    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    seeds: int

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
        return self.mean[:, 0] - self.self_tests

    def table(self) -> Table:
        """Per cent, the standard deviation over seeds behind it."""
        headers = ["query \\ gallery", *self.names, f"{self.names[0]} - self"]
        cells = [
            [
                name,
                *(_percent(mean, std) for mean, std in zip(self.mean[i], self.std[i], strict=True)),
                "" if i == 0 or np.isnan(self.gains[i]) else f"{100 * self.gains[i]:+.1f}",
            ]
            for i, name in enumerate(self.names)
        ]
        seeds = f" · {self.seeds} seeds" if self.seeds > 1 else ""
        title = f"{self.metric} in per cent · {self.title}{seeds}"
        return Table(title, headers, [False] + [True] * (len(headers) - 1), cells)

    def summary(self) -> str:
        """The means of self- and cross-tests in one line."""
        return (
            f"mean self-test {100 * np.nanmean(self.self_tests):.1f}, "
            f"mean cross-test {100 * np.nanmean(self.cross_tests):.1f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: names and nested lists, None for what was not tested."""

        def plain(values: np.ndarray) -> list[list[float | None]]:
            return [[None if np.isnan(value) else float(value) for value in row] for row in values]

        return {
            "title": self.title,
            "metric": self.metric,
            "variants": list(self.names),
            "seeds": self.seeds,
            "mean": plain(self.mean),
            "std": plain(self.std),
        }


def default_metrics(available: Collection[str]) -> list[str]:
    """Mean average precision as the data set has it, and recall at 1."""
    return [*[name for name in _AVERAGE_PRECISIONS if name in available][:1], *({"recall_at_1"} & set(available))]


def matrices_of_board(
    board: "Leaderboard", metrics: Sequence[str] | None = None, *, where: str | None = None, split: str = "test"
) -> list[Matrix]:
    """The matrices of all configs in which networks are tested against each other, config by config.

    Without `metrics`, those of `default_metrics`. Raises `UserError` for a metric of which there is no figure.
    """
    from subnetbench.harness.leaderboard.board import KEYS

    metrics = metrics or default_metrics(board.metrics)
    wanted = [*metrics, *(["capacity"] if "capacity" in board.metrics else [])]
    frame = board.frame(metrics=wanted, where=where, splits=(split,))
    group = [key for key in KEYS if key not in ("variant", "gallery_variant")]
    found = []
    for _, rows in frame.groupby(group, sort=False):
        if (rows["variant"] == rows["gallery_variant"]).all():
            continue
        first = rows.iloc[0]
        title = " · ".join(str(first[key]) for key in ("method", "dataset", "network", "config", "split") if first[key])
        sizes = dict(rows.loc[rows["metric"] == "capacity", ["variant", "mean"]].to_numpy().tolist())
        for metric in metrics:
            part = rows[rows["metric"] == metric]
            pairs = {
                (str(row.variant), str(row.gallery_variant)): (cast(float, row.mean), cast(float, row.std))
                for row in part.itertuples()
                if row.gallery_variant
            }
            if pairs:
                found.append(_matrix(title, metric, pairs, sizes, int(part["seeds"].max())))
    return found


def matrices_of_scores(scores: Iterable["Score"], title: str, metrics: Sequence[str] | None = None) -> list[Matrix]:
    """The matrices of one evaluation; none where every network was only tested with itself."""
    scores = list(scores)
    sizes = {score.variant: score.value for score in scores if score.metric == "capacity"}
    found = []
    for metric in metrics or default_metrics({score.metric for score in scores}):
        pairs = {
            (s.variant, s.gallery_variant): (s.value, float("nan"))
            for s in scores
            if s.metric == metric and s.gallery_variant
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


def _heat_map(axis: Any, matrix: Matrix) -> None:
    values = 100 * matrix.mean
    image = axis.imshow(values, cmap="viridis")
    places = range(len(matrix.names))
    axis.set_xticks(places, matrix.names, rotation=45, ha="right")
    axis.set_yticks(places, matrix.names)
    axis.set_xlabel("gallery")
    axis.set_ylabel("query")
    axis.set_title(f"{matrix.metric} (%)\n{matrix.title}", fontsize=8)
    for i in places:
        for j in places:
            if not np.isnan(values[i, j]):
                red, green, blue, _ = image.cmap(image.norm(values[i, j]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                text = f"{values[i, j]:.1f}"
                axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)


def _matrix(
    title: str,
    metric: str,
    pairs: Mapping[tuple[str, str], tuple[float, float]],
    sizes: Mapping[str, float],
    seeds: int,
) -> Matrix:
    """The pairs as arrays, the largest network first; networks of unknown size keep their order."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    names.sort(key=lambda name: -sizes.get(name, 0.0))
    mean = np.full((len(names), len(names)), np.nan)
    std = mean.copy()
    for (query, gallery), figures in pairs.items():
        place = names.index(query), names.index(gallery)
        mean[place], std[place] = figures
    return Matrix(title, metric, tuple(names), mean, std, seeds)


def _percent(mean: float, std: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{100 * mean:.1f}" if np.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f}"
