"""How two leaderboards, or two sets of rows, are compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from subnetbench.harness.core import statistics
from subnetbench.harness.core.errors import UserError, check_names
from subnetbench.harness.leaderboard.item_intervals import KINDS
from subnetbench.harness.leaderboard.matching import ALLOWABLE

TESTS: dict[statistics.TestName, str] = {"t": "paired t", "sign_flip": "sign flip", "wilcoxon": "Wilcoxon"}
"""Tests of pairs, with their names in a comparison."""

FAIL_ON: dict[str, str] = {
    "worse": "a row is significantly worse, by more than the margin",
    "missing": "a row vanished, or lost seeds to failed runs",
    "changed": "a row changed significantly, in whatever way",
    "undecided": "the seeds are too few for any values to be significant",
    "unproven": "a loss of more than the margin is not excluded: the interval reaches beyond it",
    "failed": "a run of the second side failed, whatever became of its row",
}
"""What a comparison may fail on, with what each word means."""


@dataclass(frozen=True)
class Settings:
    """How a comparison is made.

    `test` is the test of rows with at least two matching seeds; others get Welch's t test. `confidence` is that of
    each interval, and 1 - `confidence` the level of the whole family of tests, by Holm's correction. `margin` is
    how much worse, in the unit of the metric, is still acceptable. `across` names columns out of `ALLOWABLE` in
    which the two sides may differ. `metrics`, `where` and `splits` choose as in `View`; without `metrics` the
    primary metrics of both sides are compared.

    `a` and `b` are filters, both or none. With them, each row of the first leaderboard that meets `a` is compared
    with each row of the second that meets `b`, of the same task, data set, data, protocol and split, and with the
    same values of what `match` names (columns, metrics or config fields; numbers to three significant digits).

    `pair` says over what differences are tested: `seeds`; `items`, for the runs that there are; or `joint`, over both.
    None: `joint` for two sets of rows, because that one method is better should hold for other test items too; `seeds`
    for two folders, where the question is whether the same benchmark changed. Where no outcomes by item are stored, rows
    are tested over seeds, and the notes say so.

    `fail_on` names what fails the comparison, out of `FAIL_ON`; rows that are missing in b, or have lost seeds there,
    are let pass by `allow_missing`.
    """

    metrics: Sequence[str] | None = None
    where: str | None = None
    splits: Sequence[str] | None = ("test",)
    test: statistics.TestName = "t"
    confidence: float = 0.95
    margin: float = 0.0
    across: Sequence[str] = ()
    a: str | None = None
    b: str | None = None
    match: Sequence[str] = ()
    allow_missing: bool = False
    fail_on: Sequence[str] = ("worse", "missing")
    pair: str | None = None

    def __post_init__(self) -> None:
        for field in ("metrics", "splits", "across", "match", "fail_on"):
            check_names(getattr(self, field), field)
        if strange := sorted(set(self.across) - set(ALLOWABLE)):
            raise UserError("rows are never compared across it", field="across", value=strange[0], allowed=ALLOWABLE)
        if strange := sorted(set(self.fail_on) - set(FAIL_ON)):
            raise UserError("is nothing to fail on", field="fail_on", value=strange[0], allowed=", ".join(FAIL_ON))
        if self.test not in TESTS:
            raise UserError("no such test", field="test", value=self.test, allowed=", ".join(TESTS))
        if self.pair not in (None, *KINDS):
            raise UserError("is nothing to pair by", field="pair", value=self.pair, allowed=", ".join(KINDS))
        if self.pair in ("items", "joint") and self.test != "t":
            raise UserError("is a test over seeds alone", field="test", value=self.test, allowed="t, or pair seeds")
        if not self.margin >= 0:
            raise UserError("must not be negative", field="margin", value=self.margin)
        if not 0 < self.confidence < 1:
            raise UserError("must lie between 0 and 1", field="confidence", value=self.confidence)
        if (self.a is None) != (self.b is None):
            raise UserError("give a filter for both sides or for none", field="b" if self.b is None else "a")
        if self.match and not self.of_sets:
            raise UserError("is only used with filters for both sides, a and b", field="match")

    @property
    def pairing(self) -> str:
        """Over what differences are tested where outcomes by item are stored."""
        return self.pair or ("joint" if self.of_sets and self.test == "t" else "seeds")

    @property
    def of_sets(self) -> bool:
        """Whether two sets of rows are compared, rather than each row with itself in another folder."""
        return self.a is not None
