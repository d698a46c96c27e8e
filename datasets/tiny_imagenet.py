"""Tiny ImageNet: 110000 colour photographs of 64 pixels in 200 classes; classification."""

import re
from pathlib import Path

import numpy as np

from subnetbench.datasets.parts.annotations import text_lines
from subnetbench.datasets.parts.folders import class_folders
from subnetbench.datasets.parts.official import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OfficialConfig,
    ValidationSize,
    classification_data,
)
from subnetbench.harness.data import DataError, Dataset, ImageFiles, Split, Task, TaskData, register_dataset

CLASSES, TRAIN_IMAGES, TEST_IMAGES = 200, 100_000, 10_000


@register_dataset("tiny_imagenet")
class TinyImagenet(Dataset):
    """90000 training and 10000 validation images by default; the official validation split is the test.

    The official test split has no labels. The training images are those below `train/<wnid>/images`, the test
    images those that `val/val_annotations.txt` names.
    """

    tasks = ("classification",)
    licence = "terms of ImageNet: non-commercial research"
    citation = "Le, Yang. Tiny ImageNet visual recognition challenge. CS 231N report, Stanford University, 2015."
    source = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

    class Config(OfficialConfig):
        validation_size: ValidationSize = 10_000

    def load(self, task: Task) -> TaskData:
        folder = self.root / "tiny-imagenet-200"
        if not folder.is_dir():
            raise DataError(f"Tiny ImageNet is not at {folder}: get {self.source} and unpack it in {self.root}")
        train = class_folders(folder / "train", "train")
        wnids, names = train.classes, _names(folder / "words.txt")
        test_paths, test_wnids = _annotations(folder / "val")
        counts = (len(wnids), len(train), len(test_paths))
        if counts != (CLASSES, TRAIN_IMAGES, TEST_IMAGES) or not set(test_wnids) <= set(wnids):
            raise DataError(
                f"Tiny ImageNet in {folder} is incomplete: {len(wnids)} classes, {len(train)} training and "
                f"{len(test_paths)} validation images, expected {CLASSES}, {TRAIN_IMAGES} and {TEST_IMAGES}; "
                f"unpack {self.source} again"
            )
        classes = tuple(names.get(wnid, wnid) for wnid in wnids)
        train = Split(name="train", images=train.images, labels=train.labels, classes=classes)
        labels = np.array([wnids.index(wnid) for wnid in test_wnids], np.int64)
        test = Split(name="test", images=ImageFiles(test_paths), labels=labels, classes=classes)
        return classification_data(
            self,
            train,
            test,
            image_size=64,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            base=folder,
        )


def _names(path: Path) -> dict[str, str]:
    """What each WordNet id means, from lines of `wnid<tab>words`."""
    return dict(line.split("\t", 1) for line in text_lines(path) if "\t" in line)


def _annotations(folder: Path) -> tuple[list[Path], list[str]]:
    """The validation images that are there, and their WordNet ids, in the order of the annotations."""
    paths, wnids = [], []
    for line in text_lines(folder / "val_annotations.txt"):
        name, wnid = [*line.split("\t"), "", ""][:2]
        if not re.fullmatch(r"\w+\.JPEG", name) or not re.fullmatch(r"n\d+", wnid):
            raise DataError(
                f"{folder / 'val_annotations.txt'} has a line that is not `file<tab>wnid<tab>...`: {line!r}"
            )
        if (folder / "images" / name).is_file():
            paths.append(folder / "images" / name)
            wnids.append(wnid)
    return paths, wnids
