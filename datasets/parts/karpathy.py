"""Karpathy's splits of captioned images (Karpathy and Fei-Fei, CVPR 2015), in which most papers report text search.

`dataset_coco.json` and `dataset_flickr30k.json` of his archive `caption_datasets.zip` say of each image in which split it
is, with its captions as they were written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subnetbench.datasets.parts.annotations import read_bytes
from subnetbench.datasets.parts.captioned import split_of
from subnetbench.harness.data import DataError, Split, UserError, parse_json

ARCHIVE = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
PARTS: Mapping[str, tuple[str, ...]] = {"train": ("train", "restval"), "validation": ("val",), "test": ("test",)}
"""The names of his splits that make each split; `restval` is what his validation and test leave of COCO's val2014."""


@dataclass(frozen=True)
class Listed:
    """One image of the file: its folder (empty: none), its name, its number in COCO, its split, its captions."""

    folder: str
    file: str
    number: int | None
    part: str
    captions: tuple[str, ...]


def read_karpathy(path: Path) -> list[Listed]:
    """The images in order of the file. Raises `DataError` for one that is none of his."""
    try:
        content = parse_json(read_bytes(path).decode("utf-8-sig"), str(path))
        return [_listed(image) for image in content["images"]]
    except (KeyError, TypeError, ValueError, UserError) as error:
        fault = f"{type(error).__name__} {error}"
        raise DataError(f"{path} is not one of Karpathy's lists: {fault}") from error


def karpathy_splits(path: Path, locate: Callable[[Listed], Path]) -> tuple[Split, Split, Split]:
    """Training (with `restval`), validation and test; `locate` says where an image lies.

    Raises:
        DataError: When the list or images are missing, or a split is empty.
    """
    listed = read_karpathy(path)
    unknown = {image.part for image in listed} - {part for parts in PARTS.values() for part in parts}
    if unknown:
        raise DataError(f"{path} has a split {min(unknown)[:80]!r}")

    def split(name: str) -> Split:
        images = [image for image in listed if image.part in PARTS[name]]
        if not images:
            raise DataError(f"{path} has no images of the split {name}")
        return split_of(name, [locate(image) for image in images], [image.captions for image in images])

    return split("train"), split("validation"), split("test")


def _listed(image: Mapping[str, Any]) -> Listed:
    folder, file = str(image.get("filepath", "")), str(image["filename"])
    for name in filter(None, (folder, file)):
        # these names are joined to a folder, so they must not lead out of it
        if name in {".", ".."} or any(sign in name for sign in "/\\\0"):
            raise ValueError(f"{name[:80]!r} is no plain name")
    if not file:
        raise ValueError("an image has no name")
    number = image.get("cocoid")
    captions = tuple(sentence["raw"] for sentence in image["sentences"])
    if not all(isinstance(caption, str) for caption in captions):
        raise TypeError(f"a caption of {file[:80]} is no text")
    return Listed(folder, file, None if number is None else int(number), str(image["split"]), captions)
