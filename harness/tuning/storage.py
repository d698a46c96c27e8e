"""Where studies are kept: a journal file, or a PostgreSQL server that many machines reach."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage

from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.tuning.optuna_adapter import journal_storage


def open_storage(url: str) -> BaseStorage:
    """The storage at a path (a journal file) or a `postgresql://` URL.

    Raises:
        UserError: another kind of URL, or a missing package.
        SubnetbenchError: it cannot be opened.
    """
    if "://" not in url:
        try:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            return journal_storage(Path(url))
        except OSError as error:
            raise SubnetbenchError(f"the journal {url} cannot be opened: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SubnetbenchError(f"{url} is not a journal of studies: {error}") from error
    kind, rest = url.split("://", 1)
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
