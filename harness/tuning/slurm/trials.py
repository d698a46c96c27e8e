"""Trials as jobs of SLURM: submitted as slots fall free, left alone, and found again by the next driver."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.execution.plan import Plan
from subnetbench.harness.execution.recording import record_failure
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm import commands as clients
from subnetbench.harness.execution.slurm.job_memory import FINAL_REASONS
from subnetbench.harness.execution.slurm.ledger import Submission
from subnetbench.harness.execution.slurm.settle import settle
from subnetbench.harness.execution.slurm.submit import Submitter
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import Failure, Heartbeat, RunStatus
from subnetbench.harness.tuning.trial_launchers import CODE_CHANGED, Ended, TrialsWithInputs

MOST_LOST = 3
"""Jobs of a run that may vanish one after the other without a step of progress."""
FILES_SECONDS = 1.0
_FAILED = ("failed", "blocked", "pruned")


def look_seconds() -> float:
    """Seconds between two looks at the queue: `SUBNETBENCH_LOOK_SECONDS`, by default 15."""
    return float(os.environ.get("SUBNETBENCH_LOOK_SECONDS") or 15)


@dataclass(frozen=True)
class Hooks:
    """What the driver is called for: `cancelled` returns whether the driver itself was cancelled, `tick` is called about every second, `progress` with one line for a person after each event."""

    cancelled: Callable[[], bool] = lambda: False
    tick: Callable[[], None] = lambda: None
    progress: Callable[[str], None] = lambda line: None


class SlurmTrials(TrialsWithInputs):
    """Trials as jobs. They outlive their driver: the ledger and their folders tell what has become of them.

    How runs ended is read from their folders; the queue shows which jobs are gone without having noted anything, whose
    runs are submitted again and resume from their checkpoints. While the scheduler is silent or refuses, submissions
    wait.
    """

    def __init__(self, submitter: Submitter, hooks: Hooks) -> None:
        super().__init__(submitter.results, submitter.settings)
        self._submitter = submitter
        self._ledger = submitter.ledger
        self._hooks = hooks
        self._waiting: dict[str, RunSpec] = {}
        self._watched: dict[str, RunSpec] = {}
        self._gone: dict[str, float] = {}
        self._lost: dict[str, tuple[object, int]] = {}
        self._over: set[str] = set()
        self._next_look = 0.0
        self._complaint = ""

    def attach(self, spec: RunSpec, settings: RunSettings) -> bool:
        run_id = spec.run_id
        if _is_open(self._ledger.latest().get(run_id)):
            queue = self._settled()
            submission = self._ledger.latest()[run_id]
            if _is_open(submission) and _is_live(queue, submission, run_id):
                self._started[run_id] = time.time()
                self._submitter.own_settings[run_id] = settings
                self._watched[run_id] = spec
                return True
        return False

    def wait(self) -> list[Ended]:
        self._hooks.tick()
        self._read_files()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + look_seconds()
            try:
                self._look()
                self._complain(self._submit_waiting())
            except clients.SchedulerError as error:
                self._complain(str(error))
        if not self._ended:
            time.sleep(FILES_SECONDS)
        return self._take_ended()

    def stop(self) -> None:
        """Nothing is stopped: the jobs continue, and the next driver finds them."""

    def _submit(self, spec: RunSpec, settings: RunSettings) -> None:
        self.statuses.pop(spec.run_id, None)
        self._over.discard(spec.run_id)
        self._submitter.own_settings[spec.run_id] = settings
        self._waiting[spec.run_id] = spec
        self._next_look = 0.0

    def _read_files(self) -> None:
        """Notice what is over for good, whether or not its job has left the queue."""
        for run_id in list(self._watched):
            folder = RunFolder(self.results, run_id)
            failure = folder.failure() or Failure("", "")
            if folder.finished_file.exists():
                self._end(run_id, "finished")
            elif failure.reason == CODE_CHANGED:
                raise UserError(f"{run_id}: {failure.message}; `--code-changes allow` resumes nevertheless")
            elif failure.reason in FINAL_REASONS:
                self._end(run_id, "pruned" if failure.reason == "pruned" else "failed")

    def _look(self) -> None:
        """One look at the queue: release what SLURM holds, and find the runs whose jobs are gone."""
        if not self._watched:
            return
        latest = self._ledger.latest()
        own = {run_id: latest[run_id] for run_id in self._watched if run_id in latest}
        if any(submission.state == "cancelled" for submission in own.values()):
            self._hooks.progress("its jobs were cancelled; the same command resumes")
            raise KeyboardInterrupt
        queue = clients.queue(submission.name for submission in own.values())
        clients.release([job_id for job_id, job in queue.items() if job.held])
        for run_id, submission in own.items():
            if _is_live(queue, submission, run_id):
                self._gone.pop(run_id, None)
                continue
            # What it wrote last may take a moment to be seen on this machine; reading its folder anew helps.
            with contextlib.suppress(OSError):
                os.listdir(RunFolder(self.results, run_id).path)
            if time.monotonic() - self._gone.setdefault(run_id, time.monotonic()) >= look_seconds():
                job = queue.get(_place(submission, run_id))
                self._job_is_gone(run_id, "it left the queue" if job is None else job.state.lower())

    def _job_is_gone(self, run_id: str, how: str) -> None:
        del self._gone[run_id]
        folder = RunFolder(self.results, run_id)
        if folder.failure() is not None:
            self._end(run_id, "failed")
            return
        where = (folder.heartbeat() or Heartbeat()).position
        before, times = self._lost.get(run_id, (None, 0))
        self._lost[run_id] = (where, times + 1 if before == where else 1)
        spec = self._watched[run_id]
        if self._lost[run_id][1] >= MOST_LOST:
            self._give_up(spec, f"its job ended without noting why {MOST_LOST} times in a row, last by: {how}")
        else:
            self._hooks.progress(f"{run_id}: its job ended without noting why ({how}); it is submitted again")
            self._waiting[run_id] = self._watched.pop(run_id)

    def _give_up(self, spec: RunSpec, message: str) -> None:
        record_failure(
            spec,
            RunFolder(self.results, spec.run_id),
            Failure("killed", message),
            settings=self._submitter.own_settings[spec.run_id],
            started=datetime.fromtimestamp(self._started[spec.run_id], UTC),
        )
        self._end(spec.run_id, "failed")

    def _submit_waiting(self) -> str:
        """Submit what waits for nothing, and return what went wrong; what was not submitted keeps waiting."""
        self._mark_ended()
        ready = []
        for run_id, spec in list(self._waiting.items()):
            inputs = {self._status_of(each.run_id) for each in spec.dependencies()}
            if inputs & {*_FAILED}:
                del self._waiting[run_id]
                self._end(run_id, "blocked")
            elif inputs <= {"finished"}:
                ready.append(spec)
        if not ready:
            return ""
        if self._hooks.cancelled():
            raise KeyboardInterrupt
        outcome = self._submitter.submit(Plan(ready, todo=ready))
        latest = self._ledger.latest()
        # A job that was cancelled may take a while to leave the queue.
        queued = [run_id for run_id in outcome.in_queue if _is_open(latest[run_id])]
        submitted = [run_id for submission in outcome.submitted for run_id, _ in submission.jobs_of_runs()]
        for run_id in (*outcome.finished, *queued, *submitted):
            self._watched[run_id] = self._waiting.pop(run_id)
        if outcome.faults and not any(submission.job for submission in self._ledger.read()):
            raise SubnetbenchError(f"nothing could be submitted: {outcome.faults[0]}")
        return "; ".join(outcome.faults)

    def _status_of(self, run_id: str) -> str:
        finished = RunFolder(self.results, run_id).finished_file.exists()
        return "finished" if finished else self.statuses.get(run_id, "waiting")

    def _end(self, run_id: str, status: RunStatus) -> None:
        self._watched.pop(run_id, None)
        self._gone.pop(run_id, None)
        self._lost.pop(run_id, None)
        self._over.add(run_id)
        self.statuses[run_id] = status
        # What waits for it, and whoever gets its slot, need not wait for the next look.
        self._next_look = 0.0
        self._note(run_id, status, "")

    def _mark_ended(self) -> None:
        """Tell the ledger what nobody need ask the scheduler for any more."""
        if not self._over:
            return
        with self._ledger.lock():
            for submission in self._ledger.read():
                runs = {run_id for run_id, _ in submission.jobs_of_runs()}
                if submission.state == "submitted" and all(map(self._is_over, runs)):
                    submission.state = "ended"
                    self._ledger.write(submission)
                    self._over -= runs

    def _is_over(self, run_id: str) -> bool:
        return run_id in self._over or self._status_of(run_id) == "finished"

    def _settled(self) -> Mapping[str, clients.JobState]:
        """What the queue holds; a scheduler that does not answer is waited for."""
        while True:
            try:
                with self._ledger.lock():
                    return settle(self._ledger)
            except clients.SchedulerError as error:
                self._complain(str(error))
                self._hooks.tick()
                time.sleep(look_seconds())

    def _complain(self, fault: str) -> None:
        """Say what went wrong with the scheduler, once, however often it goes wrong in the same way."""
        if fault and fault != self._complaint:
            self._hooks.progress(f"{fault}; it is tried again")
        self._complaint = fault


def _is_open(submission: Submission | None) -> bool:
    return submission is not None and submission.state in ("submitting", "submitted")


def _place(submission: Submission, run_id: str) -> str:
    return submission.job_of(run_id)


def _is_live(queue: Mapping[str, clients.JobState], submission: Submission, run_id: str) -> bool:
    job = queue.get(_place(submission, run_id))
    return job is not None and job.live
