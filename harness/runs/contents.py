"""Digests of files and folders that runs read beside their data; each is read again only when it has changed."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from subnetbench.harness.core.errors import DataError
from subnetbench.harness.core.hashing import file_digest


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names, 64 hex digits.

    Raises:
        DataError: It is not there, or cannot be read.
    """
    try:
        if not path.is_dir():
            return _file(path)
        sha = hashlib.sha256()
        for inner in sorted(each for each in path.rglob("*") if each.is_file()):
            sha.update(f"{inner.relative_to(path).as_posix()}\0{_file(inner)}\n".encode("utf-8", "surrogateescape"))
        return sha.hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def content_digests(paths: Mapping[str, Path]) -> dict[str, str]:
    """The digests of those files and folders that exist, by name. Raises `DataError` for one that cannot be read."""
    return {name: content_digest(path) for name, path in paths.items() if path.exists()}


def _file(path: Path) -> str:
    state = path.stat()
    return _read(path.resolve(), state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@cache
def _read(path: Path, *state: int) -> str:
    """`state` is the size and the times of the file, so that a changed one is read again."""
    return file_digest(path)
