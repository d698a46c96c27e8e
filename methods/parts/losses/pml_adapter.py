"""What is needed of pytorch-metric-learning beyond its public API: samplers that draw from a given generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions


def class_balanced_batches(
    labels: np.ndarray, generator: np.random.Generator, *, size: int, samples_per_class: int
) -> list[np.ndarray]:
    """Batches of `samples_per_class` images of each of some classes, about one epoch in all.

    Args:
        labels: int64 (n,), with n >= size.
        generator: What all draws come from.
        size: Images of a batch, a multiple of `samples_per_class`.
        samples_per_class: Images of each class in a batch.

    Returns:
        Indices int64 (size,) of each batch.

    Raises:
        RuntimeError: When the installed library no longer draws from the generator that this module replaces.
    """
    sampler = MPerClassSampler(labels, samples_per_class, size, length_before_new_iter=len(labels))
    with _drawing_from(generator):
        order = np.fromiter(sampler, np.int64)
    return list(order.reshape(-1, size))


@contextmanager
def _drawing_from(generator: np.random.Generator) -> Iterator[None]:
    """Let the library's samplers draw from `generator` instead of NumPy's global one."""
    before = getattr(common_functions, "NUMPY_RANDOM", None)
    if before is None:
        raise RuntimeError(
            "the installed pytorch-metric-learning has no utils.common_functions.NUMPY_RANDOM, through which its "
            "samplers are seeded: adapt methods/parts/losses/pml_adapter.py or install an earlier release"
        )
    common_functions.NUMPY_RANDOM = generator
    try:
        yield
    finally:
        common_functions.NUMPY_RANDOM = before
