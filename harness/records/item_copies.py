"""Files of scores by item that go with records when these are merged into another file or published."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.core.files import publish
from subnetbench.harness.records.items_file import MAX_FILE_BYTES, items_path
from subnetbench.harness.records.read import RecordSet


@dataclass(frozen=True)
class Copied:
    """Files that lie where they belong, of records that state one; and those that are absent or not what is stated."""

    files: tuple[Path, ...]
    lacking: int


def copy_items(records: RecordSet, target: Path) -> Copied:
    """Put the files of scores by item of some records where those belong whose record file is `target`.

    A file is copied as it is, and only if it has the digest that its record states. The originals stay.

    Raises:
        SubnetbenchError: A file cannot be written.
    """
    files, lacking = [], 0
    for line in records.runs.select(["record_id", "file", "items_digest"]).to_pylist():
        if not line["items_digest"]:
            continue
        source, copy = (items_path(path, line["record_id"]) for path in (line["file"], target))
        content = None if source is None else _content(source, line["items_digest"])
        if content is None or source is None or copy is None:
            lacking += 1
            continue
        if copy.resolve() != source.resolve():
            _put(copy, content)
        files.append(copy)
    return Copied(tuple(files), lacking)


def _put(path: Path, content: bytes) -> None:
    publish(path, lambda file: file.write(content), overwrite=True)


def _content(path: Path, digest: str) -> bytes | None:
    """What is in a file, if it has this digest."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None
