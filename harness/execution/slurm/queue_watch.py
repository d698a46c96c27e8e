"""What can be said of submitted runs from outside: their files and one look at the queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.execution.slurm import commands
from subnetbench.harness.execution.slurm.commands import JobState
from subnetbench.harness.execution.slurm.ledger import Ledger, Submission
from subnetbench.harness.runs.folder import STALE_AFTER_SECONDS, RunFolder
from subnetbench.harness.runs.rows import Loss, RunRow

ENDED = ("finished", "failed")
FRESH_SECONDS = 30.0
"""A run that gave a sign of life within this time is at work, whatever the queue says."""


@dataclass
class _View:
    """One look at the queue, with what the rows of the same results folder say."""

    queue: Mapping[str, JobState]
    failed: set[str]
    unfinished: set[str]


class QueueWatch:
    """Adds SLURM's view to rows of runs. Each look costs one `squeue`; what it no longer knows costs one `sacct` once.

    States are those of `RunState`.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._causes: dict[str, JobState] = {}
        self._asked: set[str] = set()

    def look_at_all(self, rows: Sequence[RunRow]) -> bool:
        """`look` at every results folder that has jobs; whether there is any."""
        folders = {row.results for row in rows if Ledger(row.results).exists()}
        for folder in sorted(folders):
            self.look(folder, [row for row in rows if row.results == folder])
        return bool(folders)

    def take_notes(self) -> list[str]:
        """What went wrong with SLURM's clients since the last time this was asked."""
        notes, self.notes = self.notes, []
        return notes

    def look(self, results: Path, rows: Sequence[RunRow]) -> None:
        """Set `state`, `job` and `detail` of the rows of one results folder; faults of the clients become notes."""
        ledger = Ledger(results)
        latest = ledger.latest() if ledger.exists() else {}
        job_of = {run: job for s in latest.values() for run, job in s.jobs_of_runs() if latest.get(run) is s}
        unfinished = [row for row in rows if row.state != "finished"]
        submitted = [row for row in unfinished if row.run in latest]
        _describe_refused([row for row in unfinished if row.state == "waiting"], ledger)
        for row in submitted:
            row.job = job_of[row.run]
        finished = {row.run for row in rows} - {row.run for row in unfinished}
        wanted = {s.name for run_id, s in latest.items() if run_id not in finished and s.state != "ended"}
        try:
            queue = commands.queue(wanted)
        except commands.SchedulerError as error:
            self.notes.append(f"{error}; states are from files alone")
            return
        view = _View(queue, {row.run for row in rows if row.state == "failed"}, {row.run for row in unfinished})
        for row in submitted:
            _describe(row, latest[row.run], view)
        self._ask_for_causes([row for row in rows if row.state == "lost"], latest)

    def _ask_for_causes(self, lost: Sequence[RunRow], latest: Mapping[str, Submission]) -> None:
        """Why jobs ended that the queue has forgotten, from accounting where there is any."""
        forgotten = [row for row in lost if row.loss is Loss.FORGOTTEN]
        unknown = [row for row in forgotten if row.job not in self._asked]
        if unknown:
            self._asked |= {row.job for row in unknown}
            submissions = [latest[row.run] for row in unknown]
            try:
                self._causes |= commands.accounting((s.name for s in submissions), min(s.created for s in submissions))
            except commands.SchedulerError as error:
                self.notes.append(f"why jobs ended is not known: {error}")
        for row in forgotten:
            cause = self._causes.get(row.job)
            if cause is not None:
                row.loss, row.detail = Loss.ENDED, f"its job ended: {cause.state.lower()}, {cause.reason}"


def _describe(row: RunRow, submission: Submission, view: _View) -> None:
    job = view.queue.get(row.job)
    broken = sorted(set(submission.after) & view.failed)
    if job is not None and job.live and not job.hopeless:
        _describe_live(row, submission, job, view)
    elif _at_work(row):
        # The queue may be older than what the run itself says: clients and controllers keep answers for a while.
        row.state = "running"
    elif row.state in ENDED:
        return
    elif broken:
        row.state, row.detail = "blocked", f"{', '.join(broken)} failed"
        view.failed.add(row.run)
    elif submission.state == "cancelled" or (job is not None and job.state.startswith("CANCELLED")):
        row.state, row.detail = "cancelled", "the same command submits it again"
    elif submission.state == "submitting":
        row.state, row.loss, row.detail = "lost", Loss.UNCONFIRMED, Loss.UNCONFIRMED.value
    elif job is None:
        row.state, row.loss, row.detail = "lost", Loss.FORGOTTEN, Loss.FORGOTTEN.value
    else:
        row.state, row.loss, row.detail = "lost", Loss.ENDED, f"its job ended: {job.state.lower()}"


def _describe_refused(rows: Sequence[RunRow], ledger: Ledger) -> None:
    """Say of runs that wait why the scheduler did not take them, where it was asked to after anything else."""
    last = {run: s for s in (ledger.read() if ledger.exists() else []) for run, _ in s.jobs_of_runs()}
    for row in rows:
        submission = last.get(row.run)
        if submission is not None and submission.state == "refused":
            row.state, row.detail = "refused", f"{submission.detail}; the same command submits it again"


def _at_work(row: RunRow) -> bool:
    heartbeat = row.folder.heartbeat()
    return heartbeat is not None and not heartbeat.ended and heartbeat.age < FRESH_SECONDS


def _describe_live(row: RunRow, submission: Submission, job: JobState, view: _View) -> None:
    row.requeues = job.restarts
    again = f"queued again {job.restarts} times" if job.restarts > 1 else "queued again once"
    row.detail = again if job.restarts else ""
    # A job that SLURM has not considered yet has no reason, whatever it depends on.
    waits = job.reason == "Dependency" or (job.reason == "None" and set(submission.after) & view.unfinished)
    if job.pending and waits:
        row.state, row.detail = "waiting for input", ", ".join(submission.after)
    elif job.held:
        row.state, row.detail = "held", f"{job.reason}; the same command lets it start"
    elif job.pending:
        row.state = "queued"
        row.detail = row.detail or (job.reason if job.reason not in ("None", "") else "")
    else:
        _describe_running(row, job)


def _describe_running(row: RunRow, job: JobState) -> None:
    heartbeat = row.folder.heartbeat()
    if heartbeat is None or heartbeat.ended:
        # In its folder it has not begun, or is between two attempts.
        row.state = "starting" if job.state != "COMPLETING" else "stopping"
    elif heartbeat.age > STALE_AFTER_SECONDS and heartbeat.phase != "evaluating":
        row.state = "stale"
        row.detail = f"no sign of life for {heartbeat.age:.0f} s on {job.node}; its job still runs"
    else:
        row.state = "running"


def job_log_of(folder: RunFolder) -> Path | None:
    """What the last job of a run printed, where there was one."""
    ledger = Ledger(folder.results)
    submission = ledger.latest().get(folder.run_id) if ledger.exists() else None
    if submission is None:
        return None
    path = ledger.jobs_folder(submission.token) / f"{submission.job_of(folder.run_id)}_0_log.out"
    return path if path.exists() else None
