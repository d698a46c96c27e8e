"""What can be said of submitted runs from outside: their files and one look at the queue."""

import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from subnetbench.harness.launchers.slurm import clients
from subnetbench.harness.launchers.slurm.ledger import Ledger, Submission
from subnetbench.harness.run_folder import STALE_AFTER_SECONDS, RunFolder

ENDED = ("finished", "failed", "pruned")


class QueueWatch:
    """Adds SLURM's view to rows of runs. Each look costs one `squeue`; what it no longer knows costs one `sacct` once.

    States: `queued`, `held`, `waiting for input`, `starting`, `running`, `stale` (its job runs, but no sign of life),
    `stopping`, `blocked` (an input failed), `cancelled`, `lost` (its job is gone), and those of the files.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._causes: dict[str, clients.JobState] = {}
        self._asked: set[str] = set()

    def look_at_all(self, rows: Sequence[dict[str, Any]]) -> bool:
        """`look` at every results folder that has jobs; whether there is any."""
        folders = {row["results"] for row in rows if Ledger(Path(row["results"])).exists()}
        for folder in sorted(folders):
            self.look(Path(folder), [row for row in rows if row["results"] == folder])
        return bool(folders)

    def take_notes(self) -> list[str]:
        """What went wrong with SLURM's clients since the last time this was asked."""
        notes, self.notes = self.notes, []
        return notes

    def look(self, results: Path, rows: Sequence[dict[str, Any]]) -> None:
        """Set `state`, `job` and `detail` of the rows of one results folder; faults of the clients become notes."""
        ledger = Ledger(results)
        latest = ledger.latest() if ledger.exists() else {}
        places = {run: job for s in latest.values() for run, job in s.places() if latest.get(run) is s}
        finished = {row["run"] for row in rows if row["state"] == "finished"}
        wanted = {s.name for run_id, s in latest.items() if run_id not in finished and s.state != "ended"}
        queue: dict[str, clients.JobState] | None = None
        try:
            queue = clients.queue(wanted)
        except clients.SchedulerError as error:
            self.notes.append(f"{error}; states are from files alone")
        failed = {row["run"] for row in rows if row["state"] == "failed"}
        unfinished = {row["run"] for row in rows} - finished
        for row in rows:
            if row["run"] in latest and row["state"] != "finished":
                self._describe(row, latest[row["run"]], places[row["run"]], queue, failed, unfinished)
        if queue is not None:
            self._ask_for_causes([row for row in rows if row["state"] == "lost"], latest)

    def _describe(
        self,
        row: dict[str, Any],
        submission: Submission,
        job_id: str,
        queue: Mapping[str, clients.JobState] | None,
        failed: set[str],
        unfinished: Set[str],
    ) -> None:
        row["job"] = job_id
        after = set(submission.after)
        broken = sorted(after & failed)
        job = None if queue is None else queue.get(job_id)
        if queue is None:
            return
        if job is not None and job.live and not job.hopeless:
            row["requeues"] = job.restarts
            again = f"queued again {job.restarts} times" if job.restarts > 1 else "queued again once"
            row["detail"] = again if job.restarts else ""
            # A job that SLURM has not considered yet has no reason, whatever it depends on.
            if job.pending and (job.reason == "Dependency" or (job.reason == "None" and after & unfinished)):
                row["state"], row["detail"] = "waiting for input", ", ".join(submission.after)
            elif job.held:
                row["state"], row["detail"] = "held", f"{job.reason}; the same command lets it start"
            elif job.pending:
                row["state"] = "queued"
                row["detail"] = row["detail"] or (job.reason if job.reason not in ("None", "") else "")
            else:
                self._describe_running(row, job)
        elif row["state"] in ENDED:
            return
        elif broken:
            row["state"], row["detail"] = "blocked", f"{', '.join(broken)} failed"
            failed.add(row["run"])
        elif submission.state == "cancelled" or (job is not None and job.state.startswith("CANCELLED")):
            row["state"], row["detail"] = "cancelled", "the same command submits it again"
        elif submission.state == "submitting":
            row["state"], row["detail"] = "lost", "whether it was submitted is not known; the same command finds out"
        else:
            row["state"] = "lost"
            row["detail"] = f"its job ended: {job.state.lower()}" if job is not None else "its job is gone"

    def _describe_running(self, row: dict[str, Any], job: clients.JobState) -> None:
        progress = RunFolder(Path(row["results"]), row["run"]).progress() or {}
        silent = time.time() - progress.get("time", 0.0)
        if not progress or progress.get("ended"):
            # In its folder it has not begun, or is between two attempts.
            row["state"] = "starting" if job.state != "COMPLETING" else "stopping"
        elif silent > STALE_AFTER_SECONDS and progress.get("phase") != "evaluating":
            row["state"] = "stale"
            row["detail"] = f"no sign of life for {silent:.0f} s on {job.node}; its job still runs"
        else:
            row["state"] = "running"

    def _ask_for_causes(self, lost: Sequence[dict[str, Any]], latest: Mapping[str, Submission]) -> None:
        """Why jobs ended that the queue has forgotten, from accounting where there is any."""
        unknown = [row for row in lost if row["detail"] == "its job is gone" and row["job"] not in self._asked]
        if unknown:
            self._asked |= {row["job"] for row in unknown}
            submissions = [latest[row["run"]] for row in unknown]
            since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(min(s.created for s in submissions) - 3600))
            try:
                self._causes |= clients.accounting((s.name for s in submissions), since)
            except clients.SchedulerError as error:
                self.notes.append(f"why jobs ended is not known: {error}")
        for row in lost:
            cause = self._causes.get(row["job"])
            if cause is not None and row["detail"] == "its job is gone":
                row["detail"] = f"its job ended: {cause.state.lower()}, {cause.reason}"


def job_log_of(folder: RunFolder) -> Path | None:
    """What the last job of a run printed, where there was one."""
    ledger = Ledger(folder.results)
    submission = ledger.latest().get(folder.run_id) if ledger.exists() else None
    if submission is None:
        return None
    path = ledger.jobs_folder(submission.token) / f"{dict(submission.places())[folder.run_id]}_0_log.out"
    return path if path.exists() else None
