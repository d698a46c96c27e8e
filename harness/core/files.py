"""Files that others read while they are written: replaced in one step, and locks with a time limit.

Temporary files are called `<name>.tmp-<hex>`, so that globs for a suffix pass over them and `clean` finds those that
killed processes left.
"""

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from subnetbench.harness.core.errors import SubnetbenchError

if TYPE_CHECKING:
    import pyarrow as pa

_POLL_SECONDS = 0.1


class LockHeld(SubnetbenchError):
    """Another process has held a lock for longer than this one was to wait."""


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Put `content` at `path` so that readers see the old file or the new one, never a part.

    With `durable` it is on the disk when this returns; without, a power cut may undo it (but not leave a part).
    Raises `OSError`.
    """
    data = content.encode() if isinstance(content, str) else content
    _put(path, lambda file: file.write(data), overwrite=True, durable=durable)


def write_json(path: Path, value: object, *, indent: int | None = None, durable: bool = False) -> None:
    """Write a small JSON file atomically; infinities and NaN by Python's names. Raises `OSError`."""
    write_atomically(path, json.dumps(value, indent=indent), durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:  # open: the caller checks what a file holds
    """A JSON object from a file, or None when it is absent or not one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def publish(path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool) -> None:
    """Let `write` fill a file that gets its name only when it is complete and on the disk.

    Raises `FileExistsError` if `path` exists and may not be written over, `SubnetbenchError` if the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubnetbenchError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    if not overwrite and path.exists():
        raise FileExistsError(path)
    try:
        _put(path, write, overwrite=overwrite, durable=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise SubnetbenchError(f"cannot write {path}: {error.strerror or error}") from error


def publish_table(table: "pa.Table", path: Path, *, overwrite: bool, **parquet_options: Any) -> None:
    """Write a table to `path` as `publish` does; `parquet_options` go to `pyarrow.parquet.write_table`."""
    import pyarrow.parquet as pq

    publish(path, lambda file: pq.write_table(table, file, **parquet_options), overwrite=overwrite)


@contextlib.contextmanager
def file_lock(path: Path, seconds: float, held: str = "") -> Iterator[int]:
    """Hold the lock of a file (made if need be); yields its descriptor, through which child processes keep the lock.

    Raises `LockHeld`, with the message `held`, when somebody else still holds it after `seconds`.
    """
    descriptor = _open_lock(path)
    try:
        if not _locked_within(descriptor, seconds):
            raise LockHeld(held or f"{path} is locked by another process")
        yield descriptor
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        # NFS grants exclusive locks only on files that are open for writing.
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _locked_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file for this process alone; False when somebody else still holds it after `seconds`.

    The lock goes with the last descriptor of this opening of the file, also when its processes are killed.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)


def _put(path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        _rename(temporary, path, overwrite)
        if durable:
            _flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _rename(temporary: Path, path: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike rename, it fails if another process was faster
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without hard links: the rename below is atomic, if not exclusive
        else:
            return
    os.replace(temporary, path)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
