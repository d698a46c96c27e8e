"""The leaderboard: a view over records, computed anew each time, never stored."""

from collections.abc import Sequence

import pandas as pd

from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.entrants import Missing
from subnetbench.harness.leaderboard.frames import View, tidy
from subnetbench.harness.leaderboard.overall import Normalisation, Overall, Settings, overall


class Leaderboard(Board):
    """Mean, spread, interval and rank of every score, over the seeds of each config.

    Averaged are only runs that differ in nothing but their seed: another data digest, protocol, split, budget,
    preset, config, schema meaning, code, numerics, other files that were read, or tuned or not, makes another row, and
    the notes below a table say why. Scores of several machines are averaged, with a note; times never are. Of
    several finished attempts at one config and seed, the latest counts. Runs that failed, were pruned or ended early
    are counted, never averaged.

    An interval over `seeds` is a Student t interval: where the mean over all seeds lies, on these test items. One over
    `items` says where the mean of these runs lies over all test items (a bootstrap over clusters of them), a `joint` one
    where the mean over all seeds and items lies. No variance over seeds is taken for less than that of rounding to whole
    items. Items need runs that stored their outcomes; see `docs/statistics.md`.

    Args:
        paths: Results folders or record files, of any number of machines.
        trials: Count the trials of searches too.
        confidence: Confidence of the intervals, and of those of the ranks; in (0, 1).
        interval: `seeds`, `items`, or `joint`: over seeds alone where no outcomes by item are stored.
        by_machine: Runs of each machine (device, threads and whatever else times depend on) are rows of their own.

    Raises:
        UserError: A path does not exist, there is no such interval, or `confidence` is out of range.

    Example:
        >>> from subnetbench.harness.leaderboard import Leaderboard
        >>> board = Leaderboard("tests/data/version_0_1")
        >>> board.frame(metrics=["top1"])[["method", "mean", "seeds"]].to_dict("records")
        [{'method': 'edge_popup', 'mean': 0.16625, 'seeds': 2}]
    """

    def frame(
        self,
        *,
        metrics: Sequence[str] | None = None,
        where: str | None = None,
        splits: Sequence[str] | None = ("test",),
        sort: Sequence[str] = (),
        within: Sequence[str] = (),
        select: str | None = None,
    ) -> pd.DataFrame:
        """A tidy frame: one line for each row and metric.

        Args:
            metrics: The metrics to show, in this order; None: all that occur.
            where: An expression over columns, means of metrics and config fields, such as
                `sparsity >= 0.8 and config.lr < 0.1`.
            splits: The splits to show; None: all.
            sort: Names of columns or metrics, with a leading `-` for descending; by default by contest and rank.
            within: Rank rows only among those that agree in these columns, metrics or config fields too.
            select: `validation`: of each method's configs the one that is best on the validation split alone, with the
                further columns `chosen_from` (configs) and `validation` (the score that chose); see `selection.choose`.

        Returns:
            Columns: the keys of the row (`keys.KEYS`), `config` (where it differs from the method's other configs),
            `metric`, `mean`, `std`, `low`, `high`, `interval` (over what it is), `seeds` (values that were averaged), `failed`, `pruned`, `partial`
            (runs), `rank` (position in the order of means, among the rows shown that agree in `keys.CONTEST` and in
            `within`; 0: not ranked, as a row of one seed), `rank_best` and `rank_worst` (between which the true rank
            lies, for all these rows at once, at the confidence of the leaderboard; see `ranking.rank_rows`),
            `trivial` (the best trivial baseline of the data without a network), `baseline` (its name), `clears_trivial` (the whole
            interval is better than it), `frozen`, `frozen_baseline`, `clears_frozen` (the same on features of a frozen network),
            `not_averaged` (of times, in what the machines of the runs differ: there is no mean then), and `run_ids`.

        Raises:
            UserError: A name or an expression is not known.
        """
        return tidy(self, View(metrics, where, splits, sort, within, select))

    def aggregate(
        self,
        *,
        by: Sequence[str] = ("method",),
        metrics: Sequence[str] | None = None,
        where: str | None = None,
        splits: Sequence[str] | None = ("test",),
        select: str | None = None,
        normalise: Normalisation = "optimum",
        missing: Missing = "refuse",
    ) -> Overall:
        """Compare over data sets what agrees in `by`: mean rank, Borda count, normalised scores, probability of improvement,
        performance profiles; definitions and measured coverage are in `docs/statistics.md`.

        Args:
            by: Columns, metrics or config fields that make an entrant; it has one row on each data set.
            metrics: The one metric of all data sets; None: the primary metric of each.
            where: A filter of rows, as in `frame`.
            splits: The splits to compare; each is a data set of its own.
            select: `validation`: of each method's configs on a data set the one that is best on validation.
            normalise: `optimum`: 0 is the trivial baseline and 1 the best possible value of the metric; `best`: 1 is the
                best entrant's mean; `none`: scores as they are.
            missing: What is not there on every data set: `refuse`, `drop-methods` or `drop-datasets`.

        Raises:
            UserError: A name is not known, an entrant has several rows on a data set or none, scores cannot be
                normalised, or less than two entrants or data sets are left.
        """
        return overall(self, Settings(tuple(by), normalise, missing, View(metrics, where, splits, select=select)))
