"""A data set that is loaded together with the digests of what its splits hold."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from subnetbench.harness.core.hashing import SHORT_DIGITS, digest_of
from subnetbench.harness.data.content import DataContent, SplitContent
from subnetbench.harness.data.images import ImageFiles
from subnetbench.harness.data.items import Items
from subnetbench.harness.data.manifest import read_files
from subnetbench.harness.data.splits import Split, TaskData

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What the splits of a data set hold: digests, and of image files the lists of them by split."""

    content: DataContent
    items: Mapping[str, Items] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """A data set made ready for a task, and what its splits hold.

    Of image files the digest of `data` covers the bytes too: data sets themselves know but names and lengths.
    """

    data: TaskData
    contents: Contents


def describe(data: TaskData, stores: Sequence[Path]) -> Described:
    """Find out what the splits hold. `stores` are folders where digests of files are kept, best first.

    Raises:
        DataError: A file cannot be read.
    """
    splits = _splits(data)
    paths = [path for split in splits.values() if isinstance(split.images, ImageFiles) for path in split.images.paths]
    if not paths:
        return Described(data, Contents(DataContent({name: _content(each, None) for name, each in splits.items()})))
    files = dict(zip(paths, read_files(paths, stores), strict=True))
    items = {
        name: _items(split, split.images, files)
        for name, split in splits.items()
        if isinstance(split.images, ImageFiles)
    }
    content = {name: _content(split, items.get(name)) for name, split in splits.items()}
    digest = digest_of(data.digest, *(split.digest for split in content.values()))
    return Described(replace(data, digest=digest), Contents(DataContent(content), items))


def _splits(data: TaskData) -> dict[str, Split]:
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    galleries = {f"{name} gallery": split.gallery for name, split in named.items() if split.gallery is not None}
    return {**named, **galleries}


def _items(split: Split, images: ImageFiles, files: Mapping[Path, tuple[str, str]]) -> Items:
    classes = [split.classes[label] if split.classes else str(label) for label in split.labels.tolist()]
    found = [files[path] for path in images.paths]
    return Items([name for name, _ in found], [digest for _, digest in found], classes)


def _content(split: Split, items: Items | None) -> SplitContent:
    sha = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            sha.update(part if isinstance(part, bytes) else repr(part).encode())
            sha.update(b"\x1e")

    add(np.ascontiguousarray(split.labels, np.int64).tobytes(), split.classes, split.captions, split.caption_protocol)
    for prefix, truth in (split.ground_truth or {}).items():
        add(prefix, *(np.asarray(each, np.int64).tobytes() for each in (*truth.positives, *truth.ignored)))
    images = split.images
    if items is not None:
        boxes = images.boxes if isinstance(images, ImageFiles) else None
        add("\x1f".join(items.names), "\x1f".join(items.digests), None if boxes is None else boxes.tobytes())
    elif images.tensor is not None:
        pixels = images.tensor.detach().cpu().contiguous().numpy()
        add(str(pixels.dtype), pixels.shape)
        sha.update(np.ascontiguousarray(pixels).data)
    elif len(split):
        _log.warning("%s: the pixels of %s are not looked at: changes go unnoticed", split.name, type(images).__name__)
    return SplitContent(len(split), sha.hexdigest()[:SHORT_DIGITS])
