"""Readers of captioned image sets (MSCOCO, Flickr30k) and the protocols by which captions become queries.

`first_caption` asks one caption an image, the published protocol; `all_captions` asks every caption, and a query is
right when its image is found. Both search the whole collection and not a split of 5,000 or 1,000 test images, so
their figures must not be mixed with those usually printed for these sets.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.errors import DataError, UserError, unknown

Protocol = Literal["first_caption", "all_captions"]
PROTOCOLS: tuple[Protocol, ...] = ("first_caption", "all_captions")

_LAYOUT = re.compile(r"image-caption\[(-?\d)\]")
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an MSCOCO captions file: {error}") from error
    return parse_coco(content, str(path))


def parse_coco(content: Any, name: str = "annotations") -> CaptionedFiles:
    """As `read_coco`, from the parsed JSON."""
    try:
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        rows = [(files[int(a["image_id"])], str(a["caption"])) for a in content["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name} is no MSCOCO captions file: {type(error).__name__} {error}") from error
    return _collect([files[number] for number in sorted(files)], rows, name)


def read_flickr(path: Path) -> CaptionedFiles:
    """Flickr30k captions: `results.csv` of the Kaggle edition, or the token file that torchvision expects."""
    try:
        text = path.read_text(encoding="utf-8")
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


def published_pairs(
    captioned: CaptionedFiles, layout: str = "image-caption[0]", n_samples: int | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files and captions, pair by pair, as the published readers list them; at most `n_samples` pairs.

    `image-caption[i]` is one pair an image with its i-th caption (-1: the last). `caption` is one pair a caption with
    the image repeated, of which only one copy counts as found: its scores depend on how ties are broken. Use
    `queries(..., "all_captions")` instead.
    """
    if n_samples is not None and n_samples < 1:
        raise UserError("must be at least 1", field="n_samples", value=n_samples)
    match = _LAYOUT.fullmatch(layout)
    if match is not None:
        which = int(match[1])
        fewest = min(map(len, captioned.captions))
        if not -fewest <= which < fewest:
            raise UserError(
                "some image has fewer captions", field="layout", value=layout, allowed=f"{-fewest} to {fewest - 1}"
            )
        pairs = [(file, texts[which]) for file, texts in zip(captioned.files, captioned.captions, strict=True)]
    elif layout == "caption":
        pairs = [(captioned.files[image], captioned.captions[image][number]) for image, number in captioned.order]
    else:
        raise UserError("no such layout", field="layout", value=layout, allowed="caption, image-caption[i]")
    files, texts = zip(*pairs[:n_samples], strict=True)
    return files, texts
