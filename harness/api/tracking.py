"""How results changed over time. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subnetbench.harness.api.lookup import Paths, existing
from subnetbench.harness.leaderboard.history import By, lines_of_history
from subnetbench.harness.leaderboard.history import History as Points
from subnetbench.harness.leaderboard.history import history as history_of
from subnetbench.harness.leaderboard.history_formats import render, write
from subnetbench.harness.report.curves import draw_lines


@dataclass(frozen=True)
class History:
    """Metrics by version of the code; `points` has the frame with a line for each row, metric and version."""

    points: Points

    @property
    def frame(self) -> pd.DataFrame:
        """One line for each row, metric and version, in the order of time."""
        return self.points.frame

    @property
    def changed(self) -> pd.DataFrame:
        """The lines of the frame in which a metric changed significantly."""
        return self.points.changed

    def text(self, format: str = "terminal", width: int = 120) -> str:
        """Tables for people: `terminal` (at most `width` characters wide), `markdown`, `latex`; or `csv`, `json`."""
        return render(self.points, format, width)

    def write(self, path: Path | str) -> None:
        """Write to a file whose suffix says the format: .parquet, .csv, .json, .md, .tex or .txt."""
        write(self.points, path)


def history(
    folders: Paths,
    *,
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    splits: Sequence[str] | None = ("test",),
    by: By = "commit",
    confidence: float = 0.95,
    draw: Path | str | None = None,
) -> History:
    """How metrics changed from version to version of the code: mean, interval, and the test of each change.

    Args:
        folders: Results folders or record files, of any number of machines.
        metrics: Metrics to follow; None: the primary ones.
        where: Filter of rows, as for `leaderboard`.
        splits: Splits to follow; None: all.
        by: `commit`, or `code`: the digest of the source of method and data set.
        draw: Draw each line over its versions into this .png, .svg, .pdf or .pgf (LaTeX) file as well.
        confidence: Confidence of the intervals; 1 - `confidence` is the level of all tests together.

    Raises:
        UserError: A folder does not exist, or a metric, column or filter cannot be used.

    Example:
        >>> from subnetbench.harness import api
        >>> found = api.history("results/quickstart", metrics=["top1"])
        >>> found.frame[["method", "metric", "version", "seeds"]].values.tolist()
        [['edge_popup', 'top1', 1, 1]]
    """
    found = history_of(existing(folders), metrics, where=where, splits=splits, by=by, confidence=confidence)
    if draw is not None:
        draw_lines(lines_of_history(found), "version", Path(draw))
    return History(found)
