"""Where studies are kept: a journal file, or a PostgreSQL server that many machines reach."""

import contextlib
import fcntl
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.storages.journal._storage import JournalOperation

from subnetbench.harness.errors import SubnetbenchError, UserError

optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.logging.disable_default_handler()
logging.getLogger("optuna").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class _KernelLock(BaseJournalFileLock):
    """Held through the kernel: freed at once when its holder dies, where a lock file would stay behind."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(f"{journal.name}.flock")
        self._descriptor = -1

    def acquire(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        os.close(self._descriptor)


class _Journal(JournalFileBackend):
    """A journal that outlives writers killed in the middle of a line.

    Optuna's own appends the next entry to such a torn line, and can never read the file again. Readers have not
    taken the torn line into account, so it is cut off before the next entry is written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_KernelLock(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with get_lock_file(self._lock), open(self._file_path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
            file.write(lines.encode())
            file.flush()
            # To outlive a process, an entry has only to be written; for a power cut, what ends a trial is flushed,
            # with all that was written before it.
            if any(log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES for log in logs):
                os.fsync(file.fileno())


def open_storage(place: str) -> BaseStorage:
    """The storage at a path (a journal file) or a `postgresql://` URL.

    Raises `UserError` for another kind of URL or a missing package, `SubnetbenchError` when it cannot be opened.
    """
    if "://" not in place:
        try:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(_Journal(Path(place)))
        except OSError as error:
            raise SubnetbenchError(f"the journal {place} cannot be opened: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SubnetbenchError(f"{place} is not a journal of studies: {error}") from error
    kind, rest = place.split("://", 1)
    if kind not in ("postgresql", "postgresql+psycopg"):
        raise UserError("no such storage", field="--storage", value=kind, allowed="a file, postgresql://...")
    try:
        # The connection may have been closed by the server meanwhile: it is tried before it is used.
        return RDBStorage(f"postgresql+psycopg://{rest}", engine_kwargs={"pool_pre_ping": True})
    except ImportError:
        raise UserError("PostgreSQL needs the extra `tuning` (psycopg)", field="--storage") from None
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise SubnetbenchError(f"the database cannot be opened: {first_line}") from None


class AlreadyDriven(SubnetbenchError):
    """Another process drives the studies of a results folder."""


@contextlib.contextmanager
def only_driver(results: Path) -> Iterator[None]:
    """Held while a driver works on the studies of a results folder. Raises `AlreadyDriven` if one does already."""
    with open(results / "driver.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyDriven(f"another process is tuning in {results}; it must end first") from None
        yield
