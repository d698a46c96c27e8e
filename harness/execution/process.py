"""One rank of a run as an operating-system process, forked from a server that has imported everything already."""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.execution.logs import log_to_output
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import spec_from_json
from subnetbench.harness.runs.state import RunStatus

EXIT_CODES: dict[RunStatus, int] = {"finished": 0, "failed": 1, "interrupted": 3, "pruned": 4, "elsewhere": 5}
STATUS_OF: dict[int, RunStatus] = {code: status for status, code in EXIT_CODES.items()}
_PR_SET_PDEATHSIG = 1

_log = logging.getLogger(__name__)

_context = multiprocessing.get_context("forkserver")
_preloaded = ["subnetbench.harness.execution.preload"]
_context.set_forkserver_preload(_preloaded)


def preload(module: str) -> None:
    """Let the fork server import this module too; to be called before the first rank starts."""
    if module not in _preloaded:
        _preloaded.append(module)
        _context.set_forkserver_preload(_preloaded)


@dataclass(frozen=True)
class RankPlan:
    """What one rank needs to know; plain data, because it crosses a process boundary."""

    spec_file: Path
    results: Path
    settings: RunSettings
    environment: dict[str, str]


def start_rank(plan: RankPlan) -> BaseProcess:
    """Start a rank; its output goes to the run's log file."""
    # The fork server has the environment of the moment when it started, which may be another's by now.
    plan = replace(plan, environment={**os.environ, **plan.environment})
    process = _context.Process(target=_rank_main, args=(plan,), daemon=False)
    with _main_module_hidden():
        process.start()
    return process


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keeps multiprocessing from importing the user's script in the rank, where it would start its runs again.

    A rank needs nothing of it, so that scripts need no `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _rank_main(plan: RankPlan) -> None:
    _die_with_parent()
    os.environ.update(plan.environment)
    folder = RunFolder(plan.results, plan.spec_file.parent.name)
    _redirect_output(folder.log_file)
    log_to_output()
    code = EXIT_CODES["failed"]
    try:
        code = EXIT_CODES[_work(plan)]
    except BaseException:
        _log.exception("the run ended by an error of its launcher")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without unwinding: exit handlers of a forked copy are not this process's to run.
        os._exit(code)


def _work(plan: RankPlan) -> RunStatus:
    from subnetbench.harness.execution.run import RunElsewhere, execute  # late: launchers import no torch

    for plugin in plan.settings.plugins:
        load_plugin(plugin)
    try:
        return execute(spec_from_json(plan.spec_file.read_bytes()), plan.results, plan.settings)
    except RunElsewhere as error:
        _log.warning("%s", error)
        return "elsewhere"


def _redirect_output(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)


def _die_with_parent() -> None:
    """Ask for SIGTERM (a checkpoint and an orderly end) when the fork server goes, which goes with the driver."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
