"""Reading trees of image files: one folder a class."""

from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from subnetbench.harness.data import ImageFiles, Split
from subnetbench.harness.errors import DataError


def class_folders(folder: Path, name: str) -> Split:
    """The images below `folder/<class>`, however deep, in torchvision's order: classes, folders and files sorted.

    Raises `DataError` when there is no class, a class without images, or an empty file.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    try:
        classes, numbers = find_classes(folder)
        samples = make_dataset(folder, numbers, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise DataError(f"{folder} should hold one folder a class, each with images: {error}") from None
    paths = [Path(path) for path, _ in samples]
    for path in paths:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty: get it again or delete it")
    labels = np.array([label for _, label in samples], np.int64)
    return Split(name=name, images=ImageFiles(paths), labels=labels, classes=tuple(classes))
