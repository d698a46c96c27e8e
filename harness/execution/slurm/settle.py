"""The ledger against what the scheduler knows: submissions whose fate is unknown, and cancelling."""

import socket
import time

from subnetbench.harness.execution.slurm import commands
from subnetbench.harness.execution.slurm.commands import JobState
from subnetbench.harness.execution.slurm.ledger import Ledger, Submission

DIGEST_SECONDS = 3.0


def settle(ledger: Ledger) -> dict[str, JobState]:
    """What the scheduler knows of a ledger's jobs; submissions whose fate is unknown are looked up by name.

    To be called with the ledger's lock held. Raises `SchedulerError` when the scheduler does not answer.
    """
    submissions = [s for s in ledger.read() if s.state in ("submitting", "submitted")]
    unknown = [s for s in submissions if s.state == "submitting"]
    here = [s.created for s in unknown if s.host == socket.gethostname()]
    if here:
        # The lock was held until their sbatch had ended; the scheduler gets a moment to digest what it was given.
        time.sleep(min(max(max(here) + DIGEST_SECONDS - time.time(), 0), DIGEST_SECONDS))
    queue = commands.queue(s.name for s in submissions)
    job_by_name = _jobs_by_name(unknown, queue)
    for submission in unknown:
        if submission.name in job_by_name:
            submission.job, submission.state = job_by_name[submission.name].split("_")[0], "submitted"
        elif submission.created not in here and time.time() - submission.created < 2 * commands.time_limit():
            # Its sbatch may still be under way on another machine.
            raise commands.SchedulerError(
                f"whether {submission.name} was submitted is not known yet; try again in a minute"
            )
        else:
            submission.state = "lost"
            submission.detail = "the scheduler does not know it"
        ledger.write(submission)
    return queue


def _jobs_by_name(unknown: list[Submission], queue: dict[str, JobState]) -> dict[str, str]:
    """Ids of jobs by name; those that the queue does not have are asked of accounting, where there is any."""
    found = {job.name: job_id for job_id, job in queue.items()}
    missing = [s for s in unknown if s.name not in found]
    if missing:
        try:
            ended = commands.accounting((s.name for s in missing), min(s.created for s in missing))
        except commands.SchedulerError:
            ended = {}
        found |= {job.name: job_id for job_id, job in ended.items()}
    return found


def cancel_all(ledger: Ledger) -> list[str]:
    """Cancel every job of a results folder that waits or runs; returns the cancelled jobs' ids."""
    if not ledger.exists():
        return []
    with ledger.lock():
        queue = settle(ledger)
        live = [job_id for job_id, job in queue.items() if job.live]
        numbers = {job_id.split("_")[0] for job_id in live}
        for submission in ledger.read():
            if submission.job in numbers and submission.state == "submitted":
                submission.state = "cancelled"
                ledger.write(submission)
        commands.cancel(sorted(numbers))
    return live
