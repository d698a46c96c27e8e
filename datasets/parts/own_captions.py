"""One's own images with texts, from a file: `.csv` and `.tsv` with a header, `.jsonl` and `.json` with objects.

A row names an image and one caption of it; in JSON the caption may be a list of any number of them. Rows of the same
image belong together.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subnetbench.datasets.parts.annotations import MOST_BYTES, read_bytes
from subnetbench.harness.data import DataError, OpenFields, UserError, parse_json

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".json")


@dataclass(frozen=True)
class Columns:
    """What the columns, or fields, of a file are called; `split` need not be there."""

    image: str
    caption: str
    split: str


@dataclass
class OwnImage:
    """An image by its path in the file, with the split that its rows name (empty: none do) and its captions."""

    path: str
    split: str
    captions: list[str] = field(default_factory=list)


def read_own_captions(file: Path, columns: Columns) -> list[OwnImage]:
    """The images in the order in which the file first names them.

    Raises:
        DataError: Naming the file and its row, for anything that is not as it should be: a field that is missing or no
            text, a caption without a sign in it, rows of one image in two splits, a split for some images only.
    """
    found: dict[str, OwnImage] = {}
    for row, values in _rows(file, columns):
        where = f"{file}, row {row}"
        path, split = _text(values, columns.image, where), _text(values, columns.split, where, optional=True)
        image = found.setdefault(path, OwnImage(path, split))
        if image.split != split:
            raise DataError(
                f"{where}: {path[:80]} is in the split {split[:80]!r}, and before it was in {image.split[:80]!r}"
            )
        given = values.get(columns.caption)
        texts = given if isinstance(given, list) else [_text(values, columns.caption, where)]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{where}: a caption of {path[:80]} is empty or no text")
        image.captions += texts
    images = list(found.values())
    if not images:
        raise DataError(f"{file} names no images")
    if len({bool(image.split) for image in images}) > 1:
        lacking = next(image for image in images if not image.split)
        raise DataError(f"{file} names a split for some images, but none for {lacking.path[:80]}")
    return images


def _text(values: OpenFields, name: str, where: str, *, optional: bool = False) -> str:
    value = values.get(name, "" if optional else None)
    if not isinstance(value, str) or not (value or optional):
        raise DataError(f"{where}: {name!r} is missing or no text; there are {', '.join(map(str, values))[:200]}")
    return value


def _rows(file: Path, columns: Columns) -> Iterator[tuple[int, OpenFields]]:
    """Number and fields of each row."""
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{file} ends in none of {', '.join(SUFFIXES)}")
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8 text") from None
    if suffix in DELIMITERS:
        return _table(file, text, DELIMITERS[suffix], columns)
    return _objects(file, text) if suffix == ".json" else _lines(file, text)


def _table(file: Path, text: str, delimiter: str, columns: Columns) -> Iterator[tuple[int, OpenFields]]:
    # Captions may be longer than the module expects; its limit is one for the whole process.
    before = csv.field_size_limit(MOST_BYTES)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        missing = [name for name in (columns.image, columns.caption) if name not in (rows.fieldnames or ())]
        if missing:
            raise DataError(f"{file} has no column {', '.join(missing)}, only {rows.fieldnames}")
        for number, row in enumerate(rows, start=1):
            if None in row or None in row.values():
                raise DataError(f"{file}, row {number} has another number of fields than the header")
            yield number, row
    except csv.Error as error:
        raise DataError(f"{file} is damaged: {error}") from None
    finally:
        csv.field_size_limit(before)


def _lines(file: Path, text: str) -> Iterator[tuple[int, OpenFields]]:
    # A line ends at a newline alone: captions may hold other signs at which Python would cut.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            yield number, _object(_parsed(line, where), where)


def _objects(file: Path, text: str) -> Iterator[tuple[int, OpenFields]]:
    content = _parsed(text, str(file))
    if not isinstance(content, list):
        raise DataError(f"{file} should hold a list of objects")
    yield from ((number, _object(each, f"{file}, object {number}")) for number, each in enumerate(content, start=1))


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text, where)
    except UserError as error:
        raise DataError(str(error)) from None


def _object(value: Any, where: str) -> OpenFields:
    if not isinstance(value, dict):
        raise DataError(f"{where} is no object with fields")
    return value
