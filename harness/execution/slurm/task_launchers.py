"""The launchers of one task of a job: whole runs in turn, or this task's rank of a run that spans the job."""

import contextlib
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

from subnetbench.harness.execution.devices import Devices
from subnetbench.harness.execution.local import LocalLauncher, RunningRun
from subnetbench.harness.execution.process import RankPlan, start_rank
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import Failure


class TaskLauncher(LocalLauncher):
    """Does the runs of a job one after the other."""

    _signalled = 0.0

    def stop_all(self) -> None:
        """Let every run write a checkpoint and end.

        The signal is repeated every second: a process that has just started handles none yet.
        """
        self.stop(self._repeat_signal)

    def _repeat_signal(self) -> None:
        if time.monotonic() - self._signalled < 1.0:
            return
        self._signalled = time.monotonic()
        for run in self.running.values():
            run.terminate()

    @property
    def busy(self) -> bool:
        """Whether a run is under way or waits for its turn."""
        return bool(self._queue or self.running)


class RankLauncher(TaskLauncher):
    """Starts one rank of each run; the other tasks of the job start the others.

    `rank_environment` holds the variables by which torch finds this rank and its peers.
    """

    def __init__(self, results: Path, settings: RunSettings, rank_environment: Mapping[str, str]) -> None:
        super().__init__(results, settings, Devices(cpu_slots=1))
        self.rank_environment = dict(rank_environment)

    def start(self, spec: RunSpec, gpus: list[str]) -> RunningRun:
        """Start this task's rank of a run."""
        folder = RunFolder(self.results, spec.run_id)
        environment = {"OMP_NUM_THREADS": str(spec.compute.threads), **self.rank_environment}
        rank = start_rank(RankPlan(folder.spec_file, self.results, self.settings_of(spec.run_id), environment))
        return RunningRun(spec, folder, [rank], gpus, None, time.monotonic(), time.time())

    def record_failure(self, run: RunningRun, failure: Failure) -> None:
        """The first task writes the record; the others say why their own ranks ended."""
        rank = self.rank_environment["RANK"]
        if rank == "0":
            super().record_failure(run, failure)
            return
        with contextlib.suppress(OSError):
            run.folder.write_failure(replace(failure, message=f"rank {rank}: {failure.message}"))


def start_fork_server(*numbers: signal.Signals) -> None:
    """Start the fork server with these signals ignored, for good.

    SLURM signals all processes of a job; a server that died of it could not say how the runs ended.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
