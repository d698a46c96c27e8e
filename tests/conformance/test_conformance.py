"""Every registered method and data set passes the shipped conformance suite."""

import pytest

from subnetbench.harness.core.paths import default_data_root
from subnetbench.harness.data.registry import DATASETS as REGISTERED_DATASETS
from subnetbench.harness.method.registry import METHODS as REGISTERED_METHODS
from subnetbench.harness.testing.conformance import DATASET_CHECKS, METHOD_CHECKS
from subnetbench.harness.testing.trials import Trials

# Checks of a method look at the same runs, so that they belong to one worker (`--dist loadgroup`).
METHODS = [pytest.param(each.name, marks=pytest.mark.xdist_group(each.name)) for each in REGISTERED_METHODS.listing()]
DATASETS = [entry.name for entry in REGISTERED_DATASETS.listing()]


# The library of an extra, where a method needs one.
LIBRARY = {"structured_pruning": "torch_pruning"}


@pytest.fixture(scope="module")
def trials(request, tmp_path_factory):
    """The runs of one method, which its checks share."""
    if request.param in LIBRARY:
        pytest.importorskip(LIBRARY[request.param])
    return Trials(request.param, tmp_path_factory.mktemp("trials"))


@pytest.mark.parametrize("check", METHOD_CHECKS)
@pytest.mark.parametrize("trials", METHODS, indirect=True)
def test_method(trials, check):
    METHOD_CHECKS[check](trials)


@pytest.mark.parametrize("check", DATASET_CHECKS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_dataset(dataset, check):
    DATASET_CHECKS[check](dataset, default_data_root())
