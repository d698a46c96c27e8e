"""Reading trees of image files: one folder a class, and folders that are splits."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from subnetbench.harness.data import IMAGE_EXTENSIONS, DataError, ImageFiles, Split

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What folders of splits are called, in any case."""

_SHOWN = 5
_log = logging.getLogger(__name__)


def class_folders(folder: Path, name: str, *, upright: bool = False) -> Split:
    """The images below `folder/<class>`, however deep, in torchvision's order: classes, folders and files sorted.

    Hidden files and folders and those that systems add (`__MACOSX`, `Thumbs.db`) are no data; links to folders are
    followed, each folder once. Files that are no images by their suffix are counted and logged.

    Args:
        folder: Holds one folder a class.
        name: Of the split.
        upright: Turn the images as their EXIF orientation says.

    Raises:
        DataError: When there is no class, a class without images, an empty file, or a link that leads nowhere.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    classes = sorted(path.name for path in _visible(folder) if path.is_dir())
    if not classes:
        raise DataError(f"{folder} should hold one folder a class, each with images: it holds no folder")
    paths: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    empty = []
    for label, class_name in enumerate(classes):
        files = list(_files(folder / class_name))
        images = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
        others += [path for path in files if path.suffix.lower() not in IMAGE_EXTENSIONS]
        empty += [] if images else [class_name]
        paths += images
        labels += [label] * len(images)
    _check(paths)
    _say(folder, others)
    if empty:
        allowed = " ".join(IMAGE_EXTENSIONS)
        raise DataError(
            f"{folder} should hold one folder a class, each with images: {_listed(empty)} held none ({allowed})"
        )
    images_of_split = ImageFiles(paths, upright=upright)
    return Split(name=name, images=images_of_split, labels=np.array(labels, np.int64), classes=tuple(classes))


def split_folders(base: Path) -> dict[str, Path]:
    """The folders of splits in `base`, by `train`, `validation` and `test`; empty when it holds none.

    Raises:
        DataError: When two folders are the same split (`val` and `valid`), or `train` is missing beside others.
    """
    found: dict[str, Path] = {}
    for path in _visible(base):
        split = next((split for split, names in SPLIT_NAMES.items() if path.name.lower() in names), None)
        if split is None or not path.is_dir():
            continue
        if split in found:
            raise DataError(f"{base} has two folders for {split}: {found[split].name} and {path.name}; rename one")
        found[split] = path
    if found and "train" not in found:
        names = ", ".join(path.name for path in found.values())
        raise DataError(f"{base} has {names} but no folder of training images, which is called train or training")
    return found


def unread_folders(base: Path, read: Mapping[str, Path]) -> list[str]:
    """Names of the visible folders in `base` beside those that were read."""
    return [path.name for path in _visible(base) if path.is_dir() and path not in read.values()]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_data(path.name))


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name not in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _files(folder: Path) -> Iterator[Path]:
    """The visible files below a folder, in torchvision's order; each folder once, also where links make a circle."""
    walked: list[tuple[str, list[str]]] = []
    # A folder that encloses the class leads back to it, and to its neighbours.
    enclosing = {os.path.realpath(parent) for parent in folder.absolute().parents}
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen or real in enclosing:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if _is_data(name)]
        walked.append((where, files))
    for where, files in sorted(walked):
        yield from (Path(where, name) for name in sorted(files) if _is_data(name))


def _check(paths: list[Path]) -> None:
    dangling = [path for path in paths if not path.exists()]
    if dangling:
        raise DataError(f"{len(dangling)} of {len(paths)} images are links that lead nowhere: {_listed(dangling)}")
    for path in paths:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty: get it again or delete it")


def _say(folder: Path, others: list[Path]) -> None:
    if others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in others)
        listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(_SHOWN))
        _log.warning("%s: %d files are not read, for they are no images: %s", folder, len(others), listed)


def _listed(items: list[Path] | list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(map(str, items[:_SHOWN])) + more
