"""What a driver's job does, started by `start`.

The driver keeps nothing that the studies, the ledger and the runs' folders do not hold, so its job may end at any
time; trials continue in jobs of their own.

- USR2 (the time limit is near): it lets go of the trials and queues its job again.
- TERM: the same, but SLURM queues a preempted job again by itself, and a cancelled one stays cancelled.

It leaves files as a run does, in `runs/driver`: a heartbeat, and how it ended.
"""

import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from subnetbench.harness.core import environment
from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.execution.slurm import commands as clients
from subnetbench.harness.execution.slurm.fingerprint import differences, fingerprint
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.rows import DRIVER
from subnetbench.harness.runs.state import Failure, Finished, Heartbeat, RunStatus
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.slurm.plan import DriverPlan
from subnetbench.harness.tuning.slurm.submit import slurm_launcher, slurm_workers
from subnetbench.harness.tuning.slurm.trials import Hooks
from subnetbench.harness.tuning.storage import AlreadyDriven
from subnetbench.harness.tuning.studies import StudiesRun, run_studies

logger = logging.getLogger(__name__)

AGAIN_STATUS = 75
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
REQUEUE_TRIES = 5


class DriverJob:
    """One turn of the job that drives a tuning."""

    def __init__(self, folder: Path) -> None:
        self.plan = DriverPlan.read(folder)
        self.files = RunFolder(self.plan.results, DRIVER)
        self.out_of_time = False
        self._began = time.time()
        self._beaten = 0.0
        self._heartbeat = Heartbeat(stage="search", pid=os.getpid(), host=environment.host())

    def run(self) -> int:
        """Drive until the studies are done or SLURM wants the job to end; the job's exit status."""
        signal.signal(signal.SIGUSR2, self._time_is_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        if self._cancelled():
            logger.info("cancelled, or submitted again since")
            return 1
        try:
            self._check_code()
            tuned = self._tune()
        except KeyboardInterrupt:
            return self._queue_again()
        except SubnetbenchError as error:
            return self._fail(str(error))
        except Exception as error:
            logger.exception("the driver failed")
            return self._fail(f"{type(error).__name__}: {error}")
        if tuned.interrupted:
            return self._queue_again()
        self._beat(ended="finished")
        self.files.write_finished(Finished(complete=tuned.complete))
        return 0 if tuned.complete else 1

    def _tune(self) -> StudiesRun:
        plan = self.plan
        for plugin in plan.plugins:
            load_plugin(plugin)
        workers = slurm_workers(plan.content, plan.cluster, plan.settings.workers)
        settings = replace(plan.settings, workers=workers, code_changes=plan.code_changes)
        hooks = Hooks(self._cancelled, self._tick, logger.info)
        launcher = slurm_launcher(plan.content, plan.cluster, plan.code_changes, hooks)
        while True:
            try:
                return run_studies(
                    plan.content, settings, make_launcher=launcher, progress=logger.info, watch=self._watch
                )
            except AlreadyDriven as error:
                # As after a node that SLURM lost sight of, whose driver lives on.
                logger.info("%s; waiting", error)
                self._tick()
                time.sleep(PATIENCE_SECONDS)

    def _watch(self, searches: Sequence[Search]) -> None:
        trials = [search.file.budget.trials for search in searches]
        done = sum(search.completed() for search in searches)
        if None not in trials:
            self._heartbeat = replace(self._heartbeat, epoch=done, epochs=sum(map(int, filter(None, trials))))
        if all(search.stopped or not search.wants_trial(0) for search in searches):
            self._heartbeat = replace(self._heartbeat, stage="final runs")
        self._beat()

    def _tick(self) -> None:
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beat()

    def _beat(self, ended: RunStatus | None = None) -> None:
        self._beaten = time.monotonic()
        self._heartbeat = self._heartbeat.now(seconds=time.time() - self._began, ended=ended)
        self.files.write_heartbeat(self._heartbeat)

    def _time_is_up(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        self.out_of_time = True
        raise KeyboardInterrupt

    def _queue_again(self) -> int:
        """Put the job back into the queue, unless SLURM does it by itself or the driver was cancelled."""
        self._beat(ended="interrupted")
        if self._cancelled():
            return 1
        job_id = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        for _ in range(REQUEUE_TRIES):
            try:
                if self.out_of_time or clients.keeps_running(job_id, os.environ["SLURM_JOB_NAME"]):
                    logger.info("queued again")
                    clients.requeue(job_id)
                break
            except clients.SchedulerError as error:
                logger.warning("not queued again: %s", error)
                time.sleep(PATIENCE_SECONDS)
        return AGAIN_STATUS

    def _cancelled(self) -> bool:
        submission = Ledger(self.plan.results).latest().get(DRIVER)
        return submission is None or submission.token != self.plan.token or submission.state == "cancelled"

    def _check_code(self) -> None:
        changed = differences(self.plan.code, fingerprint(self.plan.plugins))
        if changed:
            message = f"since the driver was submitted there are changes in: {', '.join(changed)}"
            if self.plan.code_changes == "refuse":
                raise SubnetbenchError(f"{message}; `--code-changes allow` resumes nevertheless")
            logger.info(message)

    def _fail(self, message: str) -> int:
        logger.error("error: %s", message)
        self._beat(ended="failed")
        self.files.write_failure(Failure("error", message))
        return 1
