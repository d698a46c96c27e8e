"""Images that are nearly the same: found by the cosine of small renderings, in bounded memory."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import ImageFiles, Images
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.data.splits import Split, TaskData

BLOCK, HELD = 1024, 16_384
"""Images that are rendered at a time, and of which renderings are held: 200 MB at 32 pixels."""


@dataclass(frozen=True)
class NearPair:
    """An image of a test or gallery split and its most similar training image, by index, class and file where known."""

    split: str
    index: int
    training_index: int
    similarity: float
    label: str
    training_label: str
    file: str = ""
    training_file: str = ""


@dataclass(frozen=True)
class Duplicates:
    """How many test images (and those of their gallery) have a near-duplicate among the training images.

    `above` counts those whose most similar training image has a cosine above `threshold`; `blank` those of one colour,
    which are compared with nothing. `pairs` are the worst, the most similar first.
    """

    task: str
    protocol: str
    threshold: float
    size: int
    test: int
    training: int
    above: int
    blank: int
    pairs: tuple[NearPair, ...]

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "pairs": [asdict(pair) for pair in self.pairs]}


def renderings(images: Images, indices: np.ndarray, size: int = 32) -> Tensor:
    """Images at `indices` as unit vectors (n, channels * size * size) float32: the shorter side resized to `size`, the
    centre cut out, the mean over all pixels and channels subtracted. An image of one colour is all zeros."""
    see = Preprocessing(size=size, mean=(0.0,) * images.channels, std=(1.0,) * images.channels)
    rows = see(images, indices).flatten(1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    # Rounding leaves an image of one colour some 1e-7 from its mean.
    return torch.where(rows.abs().amax(1, keepdim=True) < 1e-4, 0.0, torch.nn.functional.normalize(rows))


def most_similar(images: Images, others: Images, size: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `images`, the cosine and the index of the most similar of `others`, and whether it is blank."""
    best, at = np.full(len(images), -1.0), np.zeros(len(images), np.int64)
    blank = np.zeros(len(images), bool)
    for held in _blocks(len(images), HELD):
        rows = torch.cat([renderings(images, held[part], size) for part in _blocks(len(held), BLOCK)])
        blank[held] = (rows == 0).all(1).numpy()
        for part in _blocks(len(others), BLOCK):
            found = (rows @ renderings(others, part, size).T).max(1)
            values = found.values.numpy()
            better = values > best[held]
            at[held[better]] = part[found.indices.numpy()[better]]
            best[held] = np.maximum(best[held], values)
    return best, at, blank


def near_pairs(images: Images, threshold: float, size: int = 32) -> np.ndarray:
    """All pairs (pairs, 2) of indices, the lower first, of images with a cosine above `threshold`; memory for all."""
    rows = torch.cat([renderings(images, part, size) for part in _blocks(len(images), BLOCK)])
    found = [np.zeros((0, 2), np.int64)]
    for part in _blocks(len(rows), BLOCK):
        first, second = (rows[part] @ rows.T > threshold).nonzero(as_tuple=True)
        pairs = np.stack([part[first.numpy()], second.numpy()], axis=1)
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def duplicates_of(data: TaskData, *, threshold: float = 0.9, size: int = 32, limit: int = 20) -> Duplicates:
    """The near-duplicates between test and training images of a data set.

    Raises:
        UserError: `threshold` is not in 0 to 1, `size` not in 4 to 256, or `limit` is negative.
    """
    if not 0 <= threshold < 1:
        raise UserError("is a cosine", field="threshold", value=threshold, allowed=">= 0, < 1")
    if not 4 <= size <= 256:
        raise UserError("is the side of a rendering in pixels", field="size", value=size, allowed="4 to 256")
    if limit < 0:
        raise UserError("is how many pairs are listed", field="limit", value=limit, allowed=">= 0")
    count, above, blank = 0, 0, 0
    pairs: list[NearPair] = []
    for split in (data.test, data.test.gallery):
        if split is None or not len(split) or not len(data.train):
            continue
        best, at, empty = most_similar(split.images, data.train.images, size)
        near = np.flatnonzero(best > threshold)
        count, above, blank = count + len(split), above + len(near), blank + int(empty.sum())
        worst = near[np.argsort(-best[near], kind="stable")[:limit]]
        pairs += [_pair(split, int(i), data.train, int(at[i]), float(best[i])) for i in worst]
    pairs.sort(key=lambda pair: -pair.similarity)
    sizes = count, len(data.train), above, blank
    return Duplicates(data.task, data.protocol, threshold, size, *sizes, tuple(pairs[:limit]))


def _pair(split: Split, index: int, train: Split, at: int, similarity: float) -> NearPair:
    name = "gallery" if split.name == "gallery" else "test"
    labels = _label(split, index), _label(train, at)
    return NearPair(name, index, at, round(similarity, 6), *labels, _file(split.images, index), _file(train.images, at))


def _label(split: Split, index: int) -> str:
    label = int(split.labels[index])
    return split.classes[label] if split.classes else str(label)


def _file(images: Images, index: int) -> str:
    return str(images.paths[index]) if isinstance(images, ImageFiles) else ""


def _blocks(count: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
