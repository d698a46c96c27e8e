"""Query workloads for search cascades: which image's caption is asked for, one query after another.

A cascade pays off when queries keep returning to a small part of the collection. `every_image_once` is the published
accuracy run, which touches nearly all images; `small_world` is made of queries as a search engine might see them, so
that the share of images touched (f) is measured and not assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnetbench.harness.method import UserError, numpy_generator


@dataclass(frozen=True)
class Workload:
    """Queries in order: `images` int64 (q,) is what each looks for, `captions` (q,) which of its captions it uses."""

    images: np.ndarray
    captions: np.ndarray


def every_image_once(images: int, seed: int) -> Workload:
    """The first caption of every image, in random order."""
    order = numpy_generator(seed, "evaluation", "every image once").permutation(images)
    return Workload(order, np.zeros(images, dtype=np.int64))


def small_world(
    caption_counts: Sequence[int] | np.ndarray,
    queries: int,
    *,
    hot_share: float = 0.1,
    exponent: float = 1.0,
    seed: int = 0,
) -> Workload:
    """`queries` draws with replacement from a hot subset of the images, by Zipf's law.

    `caption_counts[i]` is the number of captions of image i (images without any are never asked for). The hot subset
    is a random `hot_share` of the others; the image of rank r in it is drawn with probability proportional to
    r^-exponent, and one of its captions uniformly. How many images a cascade then touches depends on its widths too.
    """
    counts = np.asarray(caption_counts)
    askable = np.flatnonzero(counts > 0)
    if not len(askable):
        raise UserError("no image has a caption", field="caption_counts")
    if not 0 < hot_share <= 1:
        raise UserError("is no share of the images", field="hot_share", value=hot_share, allowed="above 0, to 1")
    if exponent < 0:
        raise UserError("must not be negative", field="exponent", value=exponent)
    generator = numpy_generator(seed, "evaluation", "small world")
    hot = generator.permutation(askable)[: max(1, round(hot_share * len(askable)))]
    weights = np.arange(1, len(hot) + 1, dtype=np.float64) ** -exponent
    images = hot[generator.choice(len(hot), size=queries, p=weights / weights.sum())]
    return Workload(images, generator.integers(0, counts[images]))
