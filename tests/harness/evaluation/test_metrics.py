"""The table of metrics: names, numbers in names, nearest spellings, and no torch."""

import subprocess
import sys

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import METRICS, parse_metric
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.evaluation.retrieval import DEFAULT_METRICS


def test_numbers_stand_for_k():
    assert parse_metric("recall_at_10") == (METRICS["recall_at_k"], 10)
    assert parse_metric("map_at_r") == (METRICS["map_at_r"], None)
    assert parse_metric("map_at_100") == (METRICS["map_at_k"], 100)
    assert parse_metric("top5") == (METRICS["top5"], None)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("recal_at_5", "recall_at_5"),
        ("recall_at_k", "recall_at_1"),
        ("Top1", "top1"),
        ("macs_execute", "macs_executed"),
        ("recall_at_0", "recall_at_1"),
        ("recall_at_٣", "recall_at_1"),
    ],
)
def test_unknown_names_get_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        parse_metric(name)


def test_every_name_that_is_ranked_or_reported_by_default_is_known():
    for name in (*DEFAULT_METRICS, *PRIMARY_METRIC.values()):
        assert parse_metric(name)[0].higher_is_better
    for metric in METRICS.values():
        assert metric.low < metric.high
        assert metric.description


def test_the_table_needs_no_torch():
    code = "import sys, subnetbench.harness.core.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
