"""What a study optimises and what it demands: metrics of a run on validation data, and costs of its network."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from subnetbench.harness.config import Config
from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.metrics import parse_metric
from subnetbench.harness.records.record import is_trivial
from subnetbench.harness.tasks import PRIMARY_METRIC

SPLIT = "validation"
DEFAULT_COST = "macs_executed"
# Names of METRICS that say what a network costs; all others are figures of a split.
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
            raise UserError(f"say which direction of {name} is better", field="objectives.direction")
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
class Figures:
    """The scores of one finished run, as its record holds them."""

    rows: tuple[tuple[str, str, str, float], ...]
    """(metric, split, variant, value), in the record's order."""

    @classmethod
    def read(cls, record: Path) -> "Figures":
        import pyarrow.parquet as pq

        table = pq.read_table(record, columns=["metric", "split", "variant", "value"]).to_pydict()
        rows = zip(table["metric"], table["split"], table["variant"], table["value"], strict=True)
        return cls(tuple(row for row in rows if row[0] and not is_trivial(row[2])))

    def value(self, wanted: Objective | Constraint, split: str = SPLIT) -> float:
        """The figure that an objective or constraint asks for, on a split.

        Raises `UserError` when the run has none of that name.
        """
        variant = wanted.variant or next((row[2] for row in self.rows if row[1] == split), None)
        split = "" if wanted.metric in COSTS else split
        for metric, own_split, own_variant, value in self.rows:
            if (metric, own_split, own_variant) == (wanted.metric, split, variant):
                return value
        names = sorted({row[0] for row in self.rows if row[1] == split})
        raise UserError(
            f"the run has no figure {wanted.metric!r} of variant {variant!r}",
            field="objectives",
            allowed=", ".join(names),
        )


def as_objective(value: Any) -> Objective:
    """`top1` or `{metric: top1, ...}`."""
    return Objective.parse({"metric": value} if isinstance(value, str) else value, where="objectives")
