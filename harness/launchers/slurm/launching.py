"""The launchers of one task of a job: whole runs in turn, or this task's rank of a run that spans the job."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from subnetbench.harness.launchers.local import Devices, LocalLauncher, _Running
from subnetbench.harness.launchers.process import RankPlan, start_rank
from subnetbench.harness.run_folder import RunFolder, write_json_text
from subnetbench.harness.specs import RunSpec


class TaskLauncher(LocalLauncher):
    """Does the runs of a job one after the other."""

    _reminded = 0.0

    def stop_all(self) -> None:
        """Let every run write a checkpoint and end; ranks that were too young to hear it are told again."""
        self.stop(self._remind)

    def _remind(self) -> None:
        if time.monotonic() - self._reminded < 1.0:
            return
        self._reminded = time.monotonic()
        for run in self.running.values():
            for rank in run.ranks:
                if rank.exitcode is None and rank.pid is not None:
                    os.kill(rank.pid, signal.SIGTERM)

    @property
    def busy(self) -> bool:
        """Whether a run is going on or waits for its turn."""
        return bool(self._queue or self.running)


class RankLauncher(TaskLauncher):
    """Starts one rank of each run; the other tasks of the job start the others. `place` is its environment."""

    def __init__(self, results: Path, settings: dict[str, Any], place: Mapping[str, str]) -> None:
        super().__init__(results, settings, Devices(cpu_slots=1))
        self.place = dict(place)

    def _start(self, spec: RunSpec, gpus: list[str]) -> None:
        folder = RunFolder(self.results, spec.run_id)
        environment = {"OMP_NUM_THREADS": str(spec.compute.threads), **self.place}
        settings = {**self._settings_of(spec.run_id), "rendezvous": None}
        rank = start_rank(RankPlan(folder.spec_file, self.results, settings, environment))
        self.running[spec.run_id] = _Running(spec, folder, [rank], gpus, None, time.monotonic(), time.time())

    def _write_failure(self, run: _Running, reason: str, message: str) -> None:
        if self.place["RANK"] == "0":
            super()._write_failure(run, reason, message)
            return
        # The first task writes the record; this one knows why its own rank ended.
        with contextlib.suppress(OSError):
            facts = {"reason": reason, "message": f"rank {self.place['RANK']}: {message}", "time": time.time()}
            write_json_text(run.folder.failure_file, json.dumps(facts))


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
