"""Cascade levels made of two encoders, and the share of images that a level of a cascade holds."""

import numpy as np

from subnetbench.harness.method import Images
from subnetbench.methods.parts.text_image.cascade import Cascade, Level
from subnetbench.methods.parts.text_image.encoders import ImageEncoder, TextEncoder


def bi_encoder_level(image_encoder: ImageEncoder, text_encoder: TextEncoder, images: Images) -> Level:
    """A level of a cascade over `images`."""
    return Level(
        image_encoder=image_encoder.identity,
        text_encoder=text_encoder.identity,
        embed_images=lambda indices: image_encoder.embed_images(images, indices),
        embed_texts=text_encoder.embed,
    )


def cached(cascade: Cascade, level: int) -> np.ndarray:
    """Which images `level` holds, bool (size,)."""
    return cascade._store(level).known()


def cached_fractions(cascade: Cascade) -> tuple[float, ...]:
    """The share of images that each level holds: after a workload, the measured f of each level."""
    return tuple(int(cached(cascade, level).sum()) / cascade.size for level in range(len(cascade.levels)))
