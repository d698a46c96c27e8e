"""Every registered method and data set passes the shipped conformance suite."""

import pytest

from subnetbench.harness.core.paths import default_data_root
from subnetbench.harness.data.registry import DATASETS as REGISTERED_DATASETS
from subnetbench.harness.method.registry import METHODS as REGISTERED_METHODS
from subnetbench.harness.testing.conformance import DATASET_CHECKS, METHOD_CHECKS

METHODS = [entry.name for entry in REGISTERED_METHODS.listing()]
DATASETS = [entry.name for entry in REGISTERED_DATASETS.listing()]


@pytest.mark.parametrize("check", METHOD_CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_method(method, check, tmp_path):
    METHOD_CHECKS[check](method, tmp_path)


@pytest.mark.parametrize("check", DATASET_CHECKS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_dataset(dataset, check):
    DATASET_CHECKS[check](dataset, default_data_root())
