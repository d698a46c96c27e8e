"""Content digests of image files, remembered: a file is read whole once, then its size and times say that it is the same.

What was found is kept in one table for each folder of images, in the data root, or elsewhere where that cannot be
written. Any number of runs may use it at once: one reads the files, the others wait for it.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from subnetbench.harness.core.errors import DataError, SubnetbenchError
from subnetbench.harness.core.files import LockHeld, file_lock, publish_table
from subnetbench.harness.core.hashing import SHORT_DIGITS, text_hash

State = tuple[int, int, int]
"""Size in bytes, and times of the last change of content and of anything, in nanoseconds."""
Known = dict[str, tuple[State, str]]
"""By the name below the folder: what a file was like when it was read, and the digest of its content."""

# Whoever waits for another process that reads a large collection may as well start reading after this long.
PATIENCE_SECONDS = 3600.0
_COLUMNS = ("name", "size", "modified", "changed", "digest")
_log = logging.getLogger(__name__)


def read_files(paths: Sequence[Path], stores: Sequence[Path]) -> list[tuple[str, str]]:
    """Of each file its name below the innermost folder that all have in common, and 16 hex digits of its content's hash.

    Args:
        paths: Files, at least one.
        stores: Folders in which the table may be kept, best first; the first that can be written is taken.

    Raises:
        DataError: A file is gone or cannot be read.
    """
    texts = [os.path.abspath(path) for path in paths]
    # What the first and the last in order share, all others share too.
    base = os.path.commonpath([os.path.dirname(min(texts)), os.path.dirname(max(texts))])
    names = [text[len(base) :].lstrip(os.sep) for text in texts]
    states = {name: _state(os.path.join(base, name)) for name in dict.fromkeys(names)}
    table = f".subnetbench-manifest-{text_hash(base)}.parquet"
    known = _read_all(stores, table)
    if _missing(states, known):
        with _alone(stores, table):
            known = _read_all(stores, table)
            todo = _missing(states, known)
            if todo:
                known |= _hash(Path(base), todo, states)
                _keep(known, stores, table)
    return [(name, known[name][1]) for name in names]


def _state(path: str) -> State:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _missing(states: Mapping[str, State], known: Known) -> list[str]:
    return [name for name, state in states.items() if name not in known or known[name][0] != state]


def _hash(base: Path, names: Sequence[str], states: Mapping[str, State]) -> Known:
    size = sum(states[name][0] for name in names)
    _log.info("reading %d image files (%.1f MB) below %s once, to know their content", len(names), size / 1e6, base)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(lambda name: _digest(base / name), names, chunksize=64))
    return {name: (states[name], digest) for name, digest in zip(names, digests, strict=True)}


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:SHORT_DIGITS]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _alone(stores: Sequence[Path], table: str) -> Iterator[None]:
    """Held while files are read, so that many runs that start together read them once; as far as that is possible."""
    with contextlib.ExitStack() as held:
        for store in stores:
            try:
                held.enter_context(file_lock(store / f"{table}.lock", PATIENCE_SECONDS))
                break
            except (OSError, LockHeld):
                continue
        yield


def _read_all(stores: Sequence[Path], table: str) -> Known:
    known: Known = {}
    for store in reversed(stores):
        known |= _read(store / table)
    return known


def _read(path: Path) -> Known:
    try:
        found = pq.read_table(path, columns=list(_COLUMNS))
        columns = [found[name].to_pylist() for name in _COLUMNS]
    except (OSError, pa.ArrowException, KeyError):
        return {}  # not there, or damaged: the files are read again
    return {name: ((*state,), digest) for name, *state, digest in zip(*columns, strict=True)}


def _keep(known: Known, stores: Sequence[Path], table: str) -> None:
    rows = [(name, *state, digest) for name, (state, digest) in known.items()]
    kinds = (pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.string())
    arrays = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    content = pa.Table.from_arrays(arrays, names=list(_COLUMNS))
    for store in stores:
        with contextlib.suppress(SubnetbenchError):
            publish_table(content, store / table, overwrite=True)
            return
    _log.warning("the digests of %d image files can be kept nowhere: every run reads all of them again", len(known))
