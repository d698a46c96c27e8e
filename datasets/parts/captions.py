"""Readers of captioned image sets (MSCOCO, Flickr30k) and the protocols by which captions become queries.

`first_caption` asks one caption an image, the published protocol; `all_captions` asks every caption, and a query is
right when its image is found. Both search the whole collection and not a split of 5,000 or 1,000 test images, so
their scores must not be mixed with those usually printed for these sets.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.data import DataError, UserError, parse_json, unknown

Protocol = Literal["first_caption", "all_captions"]
PROTOCOLS: tuple[Protocol, ...] = ("first_caption", "all_captions")

_FLICKR_HEADER = re.compile(r"image_name\|\s?comment_number\|\s?comment")
# One published row has no second separator: `2199200615.jpg| 4   A dog runs across the grass .`
_FLICKR_ROW = re.compile(r"(?P<file>[^|]+)\|\s?(?P<number>\d+)(?:\|\s?|\s+)(?P<caption>.*)")
_TOKEN_ROW = re.compile(r"(?P<file>[^#\t]+)#(?P<number>\d+)\t(?P<caption>.*)")


@dataclass(frozen=True)
class CaptionedFiles:
    """Image files with their captions.

    `captions[i]` are the captions of `files[i]` in the order of the annotation file; `order` lists all
    (image, caption number) pairs in that order, over all images.
    """

    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    order: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Queries:
    """Texts to search with, and the index of the image that each should find."""

    texts: tuple[str, ...]
    images: tuple[int, ...]


def read_coco(path: Path) -> CaptionedFiles:
    """An MSCOCO captions file (`captions_val2017.json`), images in ascending order of their numeric id."""
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, ValueError, UserError) as error:
        raise DataError(f"{path} cannot be read as an MSCOCO captions file: {error}") from error
    return parse_coco(content, str(path))


def parse_coco(content: Any, name: str = "annotations") -> CaptionedFiles:
    """As `read_coco`, from the parsed JSON."""
    try:
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        rows = [(files[int(a["image_id"])], a["caption"]) for a in content["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name} is no MSCOCO captions file: {type(error).__name__} {error}") from error
    return _collect([files[number] for number in sorted(files)], rows, name)


def read_flickr(path: Path) -> CaptionedFiles:
    """Flickr30k captions: `results.csv` of the Kaggle edition, or the token file that torchvision expects."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return parse_flickr(text, str(path))


def parse_flickr(text: str, name: str = "captions") -> CaptionedFiles:
    """As `read_flickr`, from the text of the file; images in the order of their file names.

    A Kaggle row is `file| number| caption`, below such a header; a row of the token file `file#number<TAB>caption`.
    The one row of the Kaggle edition that lacks its second separator is understood.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    kaggle = bool(lines) and _FLICKR_HEADER.fullmatch(lines[0].strip()) is not None
    pattern = _FLICKR_ROW if kaggle else _TOKEN_ROW
    rows = []
    for number, line in enumerate(lines):
        if kaggle and number == 0:
            continue
        match = pattern.fullmatch(line.rstrip("\r"))
        if match is None:
            raise DataError(f"{name}, row {number + 1} is no caption of Flickr30k: {line[:80]!r}")
        rows.append((match["file"], match["caption"]))
    return _collect(sorted({file for file, _ in rows}), rows, name)


def _collect(files: list[str], rows: Iterable[tuple[str, str]], name: str) -> CaptionedFiles:
    index = {file: i for i, file in enumerate(files)}
    captions: list[list[str]] = [[] for _ in files]
    order = []
    for file in files:
        # these names are joined to a folder, so they must not lead out of it
        if file in {"", ".", ".."} or "/" in file or "\\" in file or "\0" in file:
            raise DataError(f"{name} names a file that is no plain file name: {file[:80]!r}")
    if len(index) != len(files):
        raise DataError(f"{name} names the same file for two images")
    for file, caption in rows:
        if not isinstance(caption, str):
            raise DataError(f"{name}: a caption of {file[:80]} is no text but {str(caption)[:80]!r}")
        image = index[file]
        order.append((image, len(captions[image])))
        captions[image].append(caption)
    if not order:
        raise DataError(f"{name} holds no captions")
    return CaptionedFiles(tuple(files), tuple(map(tuple, captions)), tuple(order))


def queries(captioned: CaptionedFiles, protocol: Protocol = "first_caption") -> Queries:
    """The queries of a protocol over all images, each image having one index."""
    if protocol == "first_caption":
        pairs: Iterable[tuple[int, int]] = ((i, 0) for i, texts in enumerate(captioned.captions) if texts)
    elif protocol == "all_captions":
        pairs = captioned.order
    else:
        raise unknown("caption protocol", protocol, PROTOCOLS)
    images, texts = zip(*((i, captioned.captions[i][number]) for i, number in pairs), strict=True)
    return Queries(texts, images)
