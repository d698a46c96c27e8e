"""Text-image data sets of captioned files: splits, and the collection as the published cascades search it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from subnetbench.datasets.parts.captions import CaptionedFiles
from subnetbench.datasets.parts.official import IMAGENET_MEAN, IMAGENET_STD
from subnetbench.datasets.parts.splits import limit_training, task_data
from subnetbench.harness.data import DataError, Dataset, ImageFiles, Split, TaskData


def captioned_split(name: str, folder: Path, captioned: CaptionedFiles) -> Split:
    """All images of an annotation file with their captions. Raises `DataError` when files are missing or empty.

    Labels mean nothing here: all are 0.
    """
    paths = [folder / file for file in captioned.files]
    if not folder.is_dir():
        raise DataError(f"{folder} is missing")
    bad = [path for path in paths if not path.is_file() or path.stat().st_size == 0]
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} images are missing or empty, the first is {bad[0]}")
    labels = np.zeros(len(paths), np.int64)
    return Split(name=name, images=ImageFiles(paths), labels=labels, classes=("image",), captions=captioned.captions)


def without_images(split: Split, name: str) -> Split:
    """An empty split, where a data set is only searched and nothing is trained."""
    return split.subset(np.empty(0, np.int64), name)


def text_image_data(dataset: Dataset, splits: Sequence[Split], *, protocol: str, base: Path) -> TaskData:
    """Training, validation and test as a text-image task; `base` is the folder above all image files."""
    train, validation, test = splits
    if len(train):
        train = limit_training(train, dataset.config)
    splits = (train, validation, test)
    return task_data(dataset, "text_image", splits, protocol=protocol, mean=IMAGENET_MEAN, std=IMAGENET_STD, base=base)
