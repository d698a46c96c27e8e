"""Reading the files in which data sets say what their images show: text, CSV, JSON, YAML, XML and MATLAB.

All of them are somebody else's: what is missing or not as it should be raises `DataError` with the path, and reading
never runs code or opens other files.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from subnetbench.harness.data import DataError, UserError, read_written

MOST_BYTES = 2**30


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of at most `most` bytes."""
    try:
        size = path.stat().st_size
        if size > most:
            raise DataError(f"{path} is damaged: {size} bytes are too many for what it should be")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is missing or cannot be read ({error.strerror})") from None


def text_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        return [line for line in read_bytes(path).decode(encoding).removeprefix("\ufeff").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path} is damaged: it is not text") from None


def columns(path: Path, names: Sequence[str], *, header: int = 0, separator: str | None = None) -> list[list[str]]:
    """The rows of a text file, each with as many fields as `names`; the first `header` lines are passed over.

    Fields are separated by white space, or by `separator`; the last one may contain it.
    """
    rows = []
    for number, line in enumerate(text_lines(path)[header:], start=header + 1):
        row = line.strip().split(separator, len(names) - 1)
        if len(row) != len(names):
            raise DataError(f"{path}, line {number}: expected {' '.join(names)}, found {line[:80]!r}")
        rows.append([field.strip() for field in row])
    return rows


def csv_columns(path: Path, names: Sequence[str]) -> list[list[str]]:
    """The named columns of a CSV file with a header, row by row."""
    rows = csv.DictReader(text_lines(path))
    # Lists of images in one field are longer than the module expects; its limit is one for the whole process.
    before = csv.field_size_limit(MOST_BYTES)
    try:
        missing = set(names) - set(rows.fieldnames or ())
        if missing:
            raise DataError(f"{path} has no column {', '.join(sorted(missing))}, only {rows.fieldnames}")
        found = [[row[name] for name in names] for row in rows]
    except csv.Error as error:
        raise DataError(f"{path} is damaged: {error}") from None
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(found, start=2):
        if any(not isinstance(field, str) for field in row):
            raise DataError(f"{path}, row {number}: too few columns")
    return found


def json_or_yaml(path: Path) -> Any:
    """The content of a `.json`, `.yaml` or `.yml` file, whose values and keys all stay the texts that were written."""
    try:
        return read_written(path, texts=True, most=MOST_BYTES)
    except UserError as error:
        raise DataError(str(error)) from None


def xml_attributes(path: Path, tag: str, names: Sequence[str]) -> list[list[str]]:
    """The named attributes of all elements called `tag`, in order.

    The file is taken as text whatever encoding it declares (the parser knows few), and may declare no entities.
    """
    content = read_bytes(path)
    if b"<!" in re.sub(rb"<!--.*?-->", b"", content, flags=re.DOTALL):
        raise DataError(f"{path} is damaged: it declares a document type or entities")
    text = re.sub(r"^\s*<\?xml.*?\?>", "", content.decode("utf-8", errors="replace"), flags=re.DOTALL)
    try:
        elements = ElementTree.fromstring(text).iter(tag)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is damaged: {error}") from None
    rows = []
    for element in elements:
        missing = [name for name in names if name not in element.attrib]
        if missing:
            raise DataError(f"{path}: an element {tag} has no {', '.join(missing)}")
        rows.append([element.attrib[name] for name in names])
    return rows


def mat_variables(path: Path, *names: str) -> list[np.ndarray]:
    """The named variables of a MATLAB file (up to version 7), with singleton dimensions removed."""
    from scipy.io import loadmat

    content = io.BytesIO(read_bytes(path))
    try:
        variables = loadmat(content, squeeze_me=True, variable_names=list(names))
    except Exception as error:  # scipy's reader raises whatever the bytes lead it to
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    missing = [name for name in names if name not in variables]
    if missing:
        raise DataError(f"{path} has no variable {', '.join(missing)}")
    return [np.atleast_1d(variables[name]) for name in names]


def mat_fields(path: Path, variable: str, names: Sequence[str]) -> list[np.ndarray]:
    """The named fields of a MATLAB structure array, one array a field."""
    (structure,) = mat_variables(path, variable)
    missing = set(names) - set(structure.dtype.names or ())
    if missing:
        raise DataError(f"{path}: {variable} has no field {', '.join(sorted(missing))}")
    return [np.atleast_1d(structure[name]) for name in names]
