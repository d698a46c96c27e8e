"""One rank of a run as an operating-system process, forked from a server that has imported everything already."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from subnetbench.harness.run_folder import RunFolder

EXIT_STATUS = {"finished": 0, "failed": 1, "interrupted": 3, "pruned": 4, "elsewhere": 5}
ENDING = {status: ending for ending, status in EXIT_STATUS.items()}
_PR_SET_PDEATHSIG = 1

_context = multiprocessing.get_context("forkserver")
_preloaded = ["subnetbench.harness.launchers.preload"]
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
    settings: dict[str, object]
    environment: dict[str, str]


def start_rank(plan: RankPlan) -> BaseProcess:
    """Start a rank; its output goes to the run's log file."""
    # The fork server has the environment of the moment when it started, which may be another's by now.
    plan = replace(plan, environment={**os.environ, **plan.environment})
    process = _context.Process(target=_rank_main, args=(plan,), daemon=False)
    process.start()
    return process


def _rank_main(plan: RankPlan) -> None:
    _die_with_parent()
    os.environ.update(plan.environment)
    folder = RunFolder(plan.results, plan.spec_file.parent.name)
    _redirect_output(folder.log_file)
    # The status is set without unwinding: exit handlers of a forked copy are not this process's to run.
    status = EXIT_STATUS["failed"]
    try:
        status = EXIT_STATUS[_work(plan)]
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _work(plan: RankPlan) -> str:
    from subnetbench.harness.execution import RunElsewhere, RunSettings, execute
    from subnetbench.harness.registry import load_plugin
    from subnetbench.harness.specs import spec_from_json

    settings = RunSettings(**plan.settings)  # type: ignore[arg-type]
    for plugin in settings.plugins:
        load_plugin(plugin)
    try:
        return execute(spec_from_json(plan.spec_file.read_bytes()), plan.results, settings)
    except RunElsewhere as error:
        print(error)
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
