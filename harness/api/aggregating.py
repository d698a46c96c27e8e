"""Entrants over several data sets, read from records. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subnetbench.harness.api.lookup import Paths, existing
from subnetbench.harness.leaderboard.entrants import Missing
from subnetbench.harness.leaderboard.formats import write_frame
from subnetbench.harness.leaderboard.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.overall import Normalisation, Overall
from subnetbench.harness.leaderboard.overall_formats import render as render_overall
from subnetbench.harness.leaderboard.overall_formats import tidy as tidy_overall


@dataclass(frozen=True)
class Aggregate:
    """Entrants over several data sets: `found` has the numbers as frames; see `leaderboard.overall.Overall`."""

    found: Overall

    @property
    def frame(self) -> pd.DataFrame:
        """One line for each number: statistic, entrant, data set, against, level, value, low, high."""
        return tidy_overall(self.found)

    def text(self, format: str = "terminal", width: int = 120) -> str:
        """Tables for people: `terminal` (at most `width` characters wide), `markdown`, `latex`; or `csv`, `json`."""
        return render_overall(self.found, format, width)

    def write(self, path: Path | str) -> None:
        """Write the frame to a file whose suffix says the format: .parquet, .csv, .json, .md, .tex or .txt."""
        write_frame(self.frame, path)


def aggregate(
    folders: Paths,
    *,
    by: Sequence[str] = ("method",),
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    splits: Sequence[str] | None = ("test",),
    select: str | None = None,
    normalise: Normalisation = "optimum",
    missing: Missing = "refuse",
    trials: bool = False,
    confidence: float = 0.95,
) -> Aggregate:
    """Compare entrants over several data sets: mean rank, normalised scores, probability of improvement, profiles.

    Args:
        folders: Results folders or record files, of any number of machines.
        by: Columns that make an entrant, which has one row on each data set, such as `method` and `variant`.
        metrics: The one metric of all data sets; None: the primary metric of each.
        where: Filter of rows, as for `leaderboard`.
        splits: Splits to compare; each is a data set of its own.
        select: `validation`: of each method's configs on a data set the one that is best on validation.
        normalise: `optimum`: 0 is the trivial baseline, 1 the best possible value; `best`: 1 is the best entrant's mean;
            `none`: scores as they are.
        missing: What is not there on every data set: `refuse`, `drop-methods` or `drop-datasets`.
        trials: Count the trials of searches too.
        confidence: Confidence of the intervals, between 0 and 1.

    Raises:
        UserError: A folder does not exist, an entrant has several rows or none on a data set, scores cannot be
            normalised, or less than two entrants or data sets are left.

    Example:
        >>> from subnetbench.harness import api
        >>> api.aggregate("results/quickstart", where="method == 'edge_popup'")
        Traceback (most recent call last):
        ...
        subnetbench.harness.core.errors.UserError: where: needs at least two entrants; 1 is left
    """
    board = Leaderboard(existing(folders), trials=trials, confidence=confidence)
    found = board.aggregate(
        by=by, metrics=metrics, where=where, splits=splits, select=select, normalise=normalise, missing=missing
    )
    return Aggregate(found)
