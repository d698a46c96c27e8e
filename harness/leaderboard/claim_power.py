"""What an estimate says of a claim, and how likely as many seeds would have borne it out: t tests and their power."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from subnetbench.harness.core import statistics

Relation = Literal[">", "<", "=="]


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with its standard error over seeds and degrees of freedom (NaN with too few values),
    and those over test items where outcomes by item are known (else 0)."""

    value: float
    error: float
    freedom: float
    item_error: float = 0.0
    item_freedom: float = np.inf

    @classmethod
    def of(cls, errors: statistics.Errors) -> "Estimate":
        """The first of some estimates."""
        return cls(float(errors.difference[0]), float(np.sqrt(errors.error2[0])), float(errors.freedom[0]))

    def half_width(self, level: float) -> float:
        """Half the width of the two-sided interval at confidence 1 - `level`: the root of the sum of squares of that over
        seeds and that over items, as in `core.resampling`."""
        sources = (self.error, self.freedom), (self.item_error, self.item_freedom)
        return float(np.sqrt(sum(_half(error, freedom, level) ** 2 for error, freedom in sources)))

    def joined(self) -> "Estimate":
        """The same with one source of error, of as many degrees of freedom as both have together (Satterthwaite 1946)."""
        parts = self.error**2, self.item_error**2
        total = sum(parts)
        if not self.item_error or np.isnan(total):
            return self
        below = parts[0] ** 2 / self.freedom + parts[1] ** 2 / self.item_freedom
        return Estimate(self.value, float(np.sqrt(total)), total**2 / below)


def _half(error: float, freedom: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - level / 2)) * error if error else 0.0


def decide(
    relation: Relation, threshold: float, within: float, estimate: Estimate, level: float
) -> Literal["holds", "contradicted", "undecided"]:
    """What the estimate says of `value relation threshold`.

    `>` holds where the whole two-sided interval at confidence 1 - `level` lies above the threshold, and is contradicted where
    it lies below. `==` holds where two one-sided tests at `level` (Schuirmann 1987) show that the value is within `within` of
    the threshold, and is contradicted where the two-sided interval lies wholly outside.
    """
    value, half = estimate.value - threshold, estimate.half_width(level)
    if np.isnan(half):
        return "undecided"
    if relation == "==":
        if abs(value) + estimate.half_width(2 * level) < within:
            return "holds"
        return "contradicted" if abs(value) - half > within else "undecided"
    ahead = value if relation == ">" else -value
    return "holds" if ahead - half > 0 else "contradicted" if ahead + half < 0 else "undecided"


def power_of(relation: Relation, effect: float, within: float, estimate: Estimate, level: float) -> float:
    """The chance that estimates with this error hold, by the noncentral t distribution.

    Exact for errors over seeds alone; with test items the two sources are joined into one. The truth lies `effect` beyond
    the threshold. For `==` it is the threshold itself, and the chance is the bound
    of two one-sided tests that ignores how they depend: exact where it is above a half, and never too large.
    """
    from scipy.special import nctdtr

    joined = estimate.joined()
    error, freedom = joined.error, joined.freedom
    if np.isnan(error) or np.isnan(effect):
        return np.nan
    if error == 0:
        return float(effect > 0 or relation == "==")
    if relation == "==":
        missed = float(nctdtr(freedom, within / error, estimate.half_width(2 * level) / error))
        return max(1 - 2 * missed, 0.0)
    return float(1 - nctdtr(freedom, effect / error, estimate.half_width(level) / error))


def effect_found(wanted: float, estimate: Estimate, level: float) -> float:
    """The effect for which `power_of` a `>` is `wanted`; NaN with too few values."""
    from scipy.special import nctdtrinc

    joined = estimate.joined()
    if np.isnan(joined.error) or joined.error == 0:
        return joined.error
    return float(nctdtrinc(joined.freedom, 1 - wanted, estimate.half_width(level) / joined.error)) * joined.error
