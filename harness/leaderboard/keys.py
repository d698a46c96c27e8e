"""The names of what a leaderboard is made of: keys of a row, columns that rank rows together, costs."""

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.leaderboard.aggregate import GROUP
from subnetbench.harness.records.schema import RUN_COSTS

COSTS = ("sparsity", "parameters", "macs_executed", "macs_nonzero", "wall_seconds")
"""What a leaderboard shows beside the score, where it is known."""

CONTEST = ("task", "dataset", "protocol", "data_digest", "split", "schema_meaning")
"""Rows are ranked together when they agree in these."""

KEYS = (*GROUP, "split", "variant", "gallery_variant")
"""What makes a row."""


def higher_is_better(metric: str) -> bool | None:
    """Which way of a metric is better; None where neither is, or where that is not known."""
    if metric in RUN_COSTS:
        return False
    try:
        return parse_metric(metric)[0].higher_is_better
    except UserError:
        return None
