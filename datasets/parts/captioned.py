"""Text-image data sets of captioned files: splits, and the collection as the published cascades search it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from subnetbench.datasets.parts.captions import CaptionedFiles
from subnetbench.datasets.parts.official import IMAGENET_MEAN, IMAGENET_STD
from subnetbench.datasets.parts.splits import limit_training, task_data
from subnetbench.harness.data import DataError, Dataset, ImageFiles, Split, TaskData

Captions = Sequence[Sequence[str]]
FLICKR_FOLDERS = ("flickr30k_images", "flickr30k-images")


def captioned_split(name: str, folder: Path, captioned: CaptionedFiles) -> Split:
    """All images of an annotation file with their captions. Raises `DataError` when files are missing or empty."""
    if not folder.is_dir():
        raise DataError(f"{folder} is missing")
    return split_of(name, [folder / file for file in captioned.files], captioned.captions)


def split_of(
    name: str, paths: Sequence[Path], captions: Captions, *, upright: bool = False, merged: bool = False
) -> Split:
    """Image files with the captions of each.

    Labels mean nothing here: all are 0.

    Args:
        name: What the split is called.
        paths: One file an image.
        captions: The texts of each image; one without any is searched among, and asked for by nobody.
        upright: Turn images as their EXIF orientation says.
        merged: Equal captions of several images are one query, which any of them answers.

    Raises:
        DataError: When files are missing or empty.
    """
    bad = [path for path in paths if not path.is_file() or path.stat().st_size == 0]
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} images are missing or empty, the first is {bad[0]}")
    return Split(
        name=name,
        images=ImageFiles(paths, upright=upright),
        labels=np.zeros(len(paths), np.int64),
        classes=("image",),
        captions=tuple(map(tuple, captions)),
        caption_protocol="merged_captions" if merged else "all_captions",
    )


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


def coco_folder(root: Path) -> Path:
    """The folder with MSCOCO's images below a data root: `mscoco`, or `coco` where that is there instead."""
    usual, other = root / "mscoco", root / "coco"
    return other if other.is_dir() and not usual.is_dir() else usual


def flickr_images(base: Path) -> Path | None:
    """The folder with Flickr30k's images in `base`, as Kaggle or as torchvision calls it; None: neither is there."""
    return next((base / name for name in FLICKR_FOLDERS if (base / name).is_dir()), None)
