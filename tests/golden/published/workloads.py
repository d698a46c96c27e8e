"""The order of queries of the published accuracy run."""

import numpy as np


def published_order(images: int, seed: int) -> np.ndarray:
    """The order of queries of the published accuracy run: NumPy's global generator, seeded, shuffles 0..n-1.

    Answers do not depend on it, only which query pays for which image.
    """
    order = np.arange(images)
    np.random.RandomState(seed).shuffle(order)
    return order
