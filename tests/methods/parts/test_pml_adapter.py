"""The one module that uses what pytorch-metric-learning does not promise to keep."""

import numpy as np
import pytest
from pytorch_metric_learning.utils import common_functions

from subnetbench.methods.parts.losses.pml_adapter import class_balanced_batches

LABELS = np.repeat(np.arange(6), 5)


def batches(seed):
    return np.stack(class_balanced_batches(LABELS, np.random.default_rng(seed), size=8, samples_per_class=4))


def test_batches_hold_as_many_images_of_each_class():
    for batch in batches(0):
        assert np.unique(LABELS[batch], return_counts=True)[1].tolist() == [4, 4]


def test_draws_follow_the_generator_and_nothing_else():
    np.random.seed(1)  # noqa: NPY002  (the library's own generator, which must not matter)
    before = common_functions.NUMPY_RANDOM
    first = batches(0)
    np.random.seed(2)  # noqa: NPY002
    message = "samplers no longer draw from common_functions.NUMPY_RANDOM: adapt methods/parts/losses/pml_adapter.py"
    assert np.array_equal(batches(0), first), message
    assert not np.array_equal(batches(1), first), message
    assert common_functions.NUMPY_RANDOM is before


def test_a_library_without_that_generator_is_named(monkeypatch):
    monkeypatch.delattr(common_functions, "NUMPY_RANDOM")
    with pytest.raises(RuntimeError, match="pytorch-metric-learning has no utils"):
        batches(0)
