"""What a study optimises and what it demands: metrics of a run on validation data, and costs of its network."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
from pydantic import Field

from subnetbench.harness.core.config import Config
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import counted_by, parse_metric
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.records.record import Score, is_trivial

SPLIT = "validation"
DEFAULT_COST = "macs_executed"
# Names of METRICS of what a network costs; all others are scores on a split.
COSTS = (
    "parameters",
    "nonzero_parameters",
    "sparsity",
    "capacity",
    "macs_executed",
    "macs_nonzero",
    "latency_ms",
    "latency_ms_p95",
    "throughput",
    "peak_memory_bytes",
)


class Objective(Config):
    """A metric and its direction. `quality` is the task's primary metric, `cost` the executed MACs."""

    metric: str
    direction: Literal["maximize", "minimize"] | None = None
    variant: Annotated[str | None, Field(description="the variant that counts [default: the first]")] = None

    def resolved(self, task: str) -> "Objective":
        """The same with every name and the direction written out. Raises `UserError` for what is not known."""
        name = {"quality": PRIMARY_METRIC[task], "cost": DEFAULT_COST}.get(self.metric, self.metric)
        better = parse_metric(name)[0].higher_is_better
        if better is None and self.direction is None:
            raise UserError(f"needs a direction: neither is better of {name}", field="objectives.direction")
        direction = self.direction or ("maximize" if better else "minimize")
        return Objective(metric=name, direction=direction, variant=self.variant)

    @property
    def is_cost(self) -> bool:
        return self.metric in COSTS


class Constraint(Config):
    """A bound that a configuration must keep, e.g. `{metric: parameters, at_most: 100000}`."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    variant: Annotated[str | None, Field(description="the variant that counts [default: the first]")] = None

    def excess(self, value: float) -> float:
        """How far a value is beyond the bound; up to 0 it keeps it."""
        if math.isnan(value):
            return math.inf
        above = -math.inf if self.at_most is None else value - self.at_most
        below = -math.inf if self.at_least is None else self.at_least - value
        return max(above, below)

    def checked(self) -> "Constraint":
        parse_metric(self.metric)
        if self.at_most is None and self.at_least is None:
            raise UserError("give at_most or at_least", field=f"constraints.{self.metric}")
        return self


@dataclass(frozen=True)
class RunScores:
    """The scores of one finished run, as its record holds them and in its order."""

    rows: tuple[Score, ...]

    @classmethod
    def read(cls, record: Path) -> "RunScores":
        """Read a record. Raises `OSError` when there is none."""
        table = pq.read_table(record, columns=["metric", "split", "variant", "value"])
        rows = [row for row in table.to_pylist() if row["metric"] and not is_trivial(row["variant"])]
        return cls(tuple(Score(**row) for row in rows))

    def value(self, wanted: Objective | Constraint, split: str = SPLIT) -> float:
        """The value that an objective or constraint is about, on a split.

        Raises `UserError` when the run has none of that name.
        """
        variant = self._variant(wanted, split)
        split_of_it = "" if wanted.metric in COSTS else split
        for row in self.rows:
            if (row.metric, row.split, row.variant) == (wanted.metric, split_of_it, variant):
                return row.value
        names = sorted({row.metric for row in self.rows if row.split == split})
        raise UserError(
            f"the run has no metric {wanted.metric!r} of variant {variant!r}",
            field="objectives",
            allowed=", ".join(names),
        )

    def step(self, wanted: Objective, split: str = SPLIT) -> float:
        """The least by which two values of an objective can differ: 0 for a cost, NaN where the record does not say."""
        if wanted.metric in COSTS:
            return 0.0
        of, parts = counted_by(wanted.metric)
        place = (split, self._variant(wanted, split))
        items = [row.value for row in self.rows if of == row.metric and place == (row.split, row.variant)]
        return 1 / (items[0] * parts) if of and items and items[0] > 0 else math.nan

    def _variant(self, wanted: Objective | Constraint, split: str) -> str | None:
        return wanted.variant or next((row.variant for row in self.rows if row.split == split), None)


def as_objective(value: Any) -> Objective:
    """`top1` or `{metric: top1, ...}`."""
    return Objective.parse({"metric": value} if isinstance(value, str) else value, where="objectives")


def as_constraint(value: Any) -> Constraint:
    """`parameters<=100000`, `top1>=0.9`, or `{metric: parameters, at_most: 100000}`."""
    if isinstance(value, str):
        value = _bound(value)
    return Constraint.parse(value, where="constraints")


def _bound(text: str) -> dict[str, str | float]:
    for sign, name in (("<=", "at_most"), (">=", "at_least")):
        metric, found, bound = text.partition(sign)
        if found:
            try:
                return {"metric": metric.strip(), name: float(bound)}
            except ValueError:
                break
    raise UserError("must look like metric<=number or metric>=number", field="constraints", value=text)
