"""Every registered method and data set passes the shipped conformance suite."""

import pytest

from subnetbench.harness.conformance import DATASET_CHECKS, METHOD_CHECKS
from subnetbench.harness.paths import default_data_root
from subnetbench.harness.registry import listing

METHODS = [entry.name for entry in listing("method")]
DATASETS = [entry.name for entry in listing("dataset")]


@pytest.mark.parametrize("check", METHOD_CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_method(method, check, tmp_path):
    METHOD_CHECKS[check](method, tmp_path)


@pytest.mark.parametrize("check", DATASET_CHECKS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_dataset(dataset, check):
    DATASET_CHECKS[check](dataset, default_data_root())
