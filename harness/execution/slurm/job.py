"""What happens inside a job: its runs, a checkpoint when SLURM asks for one, and whether the job is queued again.

One process of this kind a task. It trains nothing itself: each run has processes of its own (see
`execution.process`), so that this one outlives them and can say how they ended. A run of several processes has one
task a rank; other runs share a job and are done in turn.

- USR2 (time limit, or preemption where the site sends it): checkpoints, then submitit queues the job again.
- TERM: checkpoints. SLURM queues the job again by itself where it was preempted or requeued; where the job
  is not ending at all (a grace period, a stray signal) it is queued again from here; a cancelled one stays cancelled.
- A failed run is tried again in the same job number unless it failed in the same way before.
"""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from subnetbench.harness.core import environment
from subnetbench.harness.distributed.compute import GPU_REQUESTED
from subnetbench.harness.execution.devices import Devices, visible_gpus
from subnetbench.harness.execution.slurm import commands, submitit_adapter
from subnetbench.harness.execution.slurm.fingerprint import differences, fingerprint
from subnetbench.harness.execution.slurm.job_memory import MOST_STANDSTILLS, FailureHistory, standstills
from subnetbench.harness.execution.slurm.job_plan import JobPlan
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.task_launchers import RankLauncher, TaskLauncher, start_fork_server
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec, spec_from_json
from subnetbench.harness.runs.state import Failure, RunStatus

_log = logging.getLogger(__name__)

# Time limits are free as long as a run gets on; `MOST_STANDSTILLS` ends what does not.
MOST_TIMEOUTS = 1_000_000
# Heartbeats come every second while a run trains.
FRESH_SECONDS = 30.0
AGAIN_EXIT_CODE = 75
_BUSY_WAIT_SECONDS = 5


class Work:
    """The function that submitit calls with the ids of a job's runs; `checkpoint` is its answer to a signal."""

    def __call__(self, *run_ids: str) -> None:
        _Task(Path(os.environ["SUBMITIT_FOLDER"]), run_ids).run()

    def checkpoint(self, *run_ids: str) -> submitit_adapter.DelayedSubmission | None:
        """The same work again, unless it stood still since the last times; its state is in the runs' folders."""
        task = _Task(Path(os.environ["SUBMITIT_FOLDER"]), run_ids)
        return None if task.stands_still() else submitit_adapter.DelayedSubmission(self, *run_ids)


class _Task:
    def __init__(self, folder: Path, run_ids: Sequence[str]) -> None:
        self.folder = folder
        self.plan = JobPlan.read(folder)
        self.run_ids = list(run_ids)
        self.folders = {run_id: RunFolder(self.plan.results, run_id) for run_id in run_ids}
        self.failures = {run_id: FailureHistory(folder, run_id) for run_id in run_ids}
        self.environment = submitit_adapter.JobEnvironment()
        self.is_first = self.environment.global_rank == 0
        self.signals: list[int] = []

    def run(self) -> None:
        """Do the runs; ends the process where the job failed or is to be queued again."""
        if not self._is_ours() or not self._code_is_the_same():
            sys.exit(1)
        user_signal = submitit_adapter.user_signal()
        submitits_answer = signal.getsignal(user_signal)
        for number in (user_signal, signal.SIGTERM):
            signal.signal(number, self._note)
        start_fork_server(user_signal, signal.SIGTERM)
        todo = [spec for spec in map(self._spec, self.run_ids) if self._is_to_do(spec.run_id)]
        statuses = self._do(todo)
        _log.info("runs: %s", statuses)
        if not self.is_first:
            sys.exit(0)
        if not self._unfinished():
            return
        # All failures are noted, whether or not the first of them decides.
        verdicts = [
            self.failures[spec.run_id].may_try_again(self.folders[spec.run_id].failure())
            for spec in todo
            if statuses.get(spec.run_id) == "failed"
        ]
        unfinished = any(statuses.get(spec.run_id) in (None, "interrupted", "elsewhere") for spec in todo)
        if any(verdicts) or (unfinished and self.signals):
            if user_signal in self.signals and callable(submitits_answer):
                submitits_answer(user_signal, None)
            self._queue_again()
        sys.exit(1)

    def stands_still(self) -> bool:
        """Whether nothing was trained since the last few times that the job was queued again; notes where it is."""
        file = self.folder / f"position-{self.environment.array_task_id}.json"
        try:
            times = standstills(file, list(self.folders.values()))
        except OSError as error:
            # Without a memory of what happened there would be no end to it.
            _log.error("not queued again: %s", error)
            return True
        if times < MOST_STANDSTILLS:
            return False
        message = f"it got no further in {times} jobs; a longer time limit may help"
        for folder in self._unfinished():
            folder.write_failure(Failure("standstill", message))
        return True

    def _unfinished(self) -> list[RunFolder]:
        return [folder for folder in self.folders.values() if not folder.finished_file.exists()]

    def _do(self, specs: Sequence[RunSpec]) -> dict[str, RunStatus]:
        if not specs:
            return {}
        launcher = self._launcher(specs)
        statuses: dict[str, RunStatus] = {}
        waiting = list(specs)
        while waiting and not self.signals:
            busy = [spec for spec in waiting if self._is_busy(spec.run_id)]
            for spec in waiting:
                if spec not in busy:
                    launcher.submit(spec, self.plan.settings_of(spec.run_id))
            while launcher.busy and not self.signals:
                launcher.poll()
            if self.signals:
                launcher.stop_all()
            statuses |= launcher.statuses
            # An earlier job that SLURM lost sight of may still be at work; it may as well finish.
            elsewhere = [spec for spec in specs if launcher.statuses.get(spec.run_id) == "elsewhere"]
            for spec in specs:
                launcher.statuses.pop(spec.run_id, None)
            waiting = busy + elsewhere
            if waiting and not self.signals:
                time.sleep(_BUSY_WAIT_SECONDS)
        return statuses

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def _launcher(self, specs: Sequence[RunSpec]) -> TaskLauncher:
        results, settings = self.plan.results, self.plan.settings
        if self.plan.gpus:
            os.environ[GPU_REQUESTED] = "1"
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if self.plan.processes == 1:
            launcher = TaskLauncher(results, settings, Devices(cpu_slots=1, gpus=visible_gpus(specs)[:1]))
        else:
            launcher = RankLauncher(results, settings, self._rank_environment())
        for spec in specs:
            for each in spec.dependencies():
                finished = RunFolder(results, each.run_id).finished_file.exists()
                launcher.statuses[each.run_id] = "finished" if finished else "failed"
        return launcher

    def _rank_environment(self) -> dict[str, str]:
        """This task's rank, and where the ranks meet."""
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        # Another port each time: what is left of an earlier job may still hold the old one.
        number = int(re.sub(r"\D", "", self.environment.raw_job_id) or "0") * 31 + int(restarts)
        os.environ["MASTER_PORT"] = str(20000 + number % 12000)
        return submitit_adapter.rank_environment()

    def _queue_again(self) -> NoReturn:
        """Queue the job again, unless SLURM is ending it."""
        try:
            job_id, name = self.environment.job_id, os.environ.get("SLURM_JOB_NAME", "")
            if not self.signals or (commands.keeps_running(job_id, name) and not self.stands_still()):
                commands.requeue(job_id)
        except commands.SchedulerError as error:
            _log.error("not queued again: %s", error)
        sys.exit(AGAIN_EXIT_CODE)

    def _is_to_do(self, run_id: str) -> bool:
        """Unless it is finished, or failed for good in an earlier turn of this job."""
        return not self.folders[run_id].finished_file.exists() and not self.failures[run_id].is_final()

    def _is_busy(self, run_id: str) -> bool:
        """Whether another process is at work on a run, as its heartbeat says."""
        folder = self.folders[run_id]
        heartbeat = folder.heartbeat()
        if heartbeat is None or heartbeat.ended or heartbeat.age > FRESH_SECONDS:
            return False
        if folder.finished_file.exists():
            return False
        return heartbeat.host != environment.host() or Path(f"/proc/{heartbeat.pid}").exists()

    def _is_ours(self) -> bool:
        """The ledger decides who does a run: a job that was written off and turned up after all does nothing."""
        latest = Ledger(self.plan.results).latest()
        for run_id in self.run_ids:
            submission = latest.get(run_id)
            if submission is None or submission.token != self.plan.token or submission.state == "cancelled":
                _log.warning("run %s is no longer this job's: cancelled, or submitted again since", run_id)
                return False
        return True

    def _code_is_the_same(self) -> bool:
        changed = differences(self.plan.code, fingerprint(self.plan.settings.plugins))
        if not changed:
            return True
        message = f"since this run was submitted there are changes in: {', '.join(changed)}"
        _log.warning("%s", message)
        if self.plan.code_changes == "allow":
            return True
        if self.is_first:
            for folder in self._unfinished():
                folder.write_failure(Failure("code-changed", f"{message}; --retry-failed submits it again"))
        return False

    def _spec(self, run_id: str) -> RunSpec:
        return spec_from_json(self.folders[run_id].spec_file.read_bytes())
