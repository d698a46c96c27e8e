"""What was submitted, written down before it is submitted, so that nothing is ever submitted twice.

    <results>/slurm/lock                    held by whoever submits or cancels
    <results>/slurm/submissions/TOKEN.json  one array each: its runs, and its job number once it is known
    <results>/slurm/jobs/TOKEN/             mode 700: batch file, pickles, logs of the jobs

A token is part of its jobs' name. When the submitting process dies between submitting and noting the job's number,
the next one finds the jobs by that name. A job does nothing unless the ledger says that its run is its own.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.errors import SubnetbenchError
from subnetbench.harness.locks import locked_within
from subnetbench.harness.run_folder import read_json, write_json_text

LOCK_SECONDS = 300.0
DRIVER = "driver"
"""Stands for the id of a run where a job drives a tuning (see `tuning.driver_job`)."""

SubmissionState = Literal["submitting", "submitted", "refused", "lost", "cancelled", "blocked", "ended"]


@dataclass
class Submission:
    """One job array. `jobs[i]` are the ids of the runs that array task i does in turn.

    `after` are ids of runs that must finish first. States: `submitting` until the job number is known; `refused` by
    the scheduler; `lost` when it was never heard of again; `cancelled`; `blocked` was not submitted because a run
    that it starts from failed; `ended` when a driver has seen all its runs end and nobody need ask for it any more.
    """

    token: str
    name: str
    jobs: list[list[str]]
    state: SubmissionState = "submitting"
    job: str = ""
    after: list[str] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    host: str = field(default_factory=socket.gethostname)
    code: dict[str, str] = field(default_factory=dict)
    detail: str = ""

    def places(self) -> Iterator[tuple[str, str]]:
        """Every run with the id of the job that does it (empty when there is none)."""
        for index, runs in enumerate(self.jobs):
            for run_id in runs:
                yield run_id, f"{self.job}_{index}" if self.job else ""


class Ledger:
    """The submissions of one results folder."""

    def __init__(self, results: Path) -> None:
        self.folder = results / "slurm"

    def exists(self) -> bool:
        return self.folder.is_dir()

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Wait for and hold the right to submit; yields a descriptor that keeps it for child processes.

        Raises `SubnetbenchError` when somebody else holds it for too long.
        """
        (self.folder / "submissions").mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            if not locked_within(descriptor, LOCK_SECONDS):
                raise SubnetbenchError(
                    f"somebody else has been submitting this sweep for {LOCK_SECONDS:.0f} s; nothing was done"
                )
            yield descriptor
        finally:
            os.close(descriptor)

    def new(self, sweep: str, jobs: list[list[str]], **facts: Any) -> Submission:
        """A submission with a token of its own, not yet written."""
        token = uuid.uuid4().hex[:10]
        return Submission(token, f"{sweep[:40]}-{token}", jobs, **facts)

    def write(self, submission: Submission) -> None:
        """Put a submission on disk so that it outlives this process and this machine."""
        path = self.folder / "submissions" / f"{submission.token}.json"
        write_json_text(path, json.dumps(asdict(submission), indent=1))
        for each in (path, path.parent):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def jobs_folder(self, token: str) -> Path:
        return self.folder / "jobs" / token

    def read(self) -> list[Submission]:
        """All submissions, oldest first; a file that is none is left out."""
        found = []
        for path in (self.folder / "submissions").glob("*.json"):
            facts = read_json(path)
            try:
                found.append(Submission(**(facts or {})))
            except TypeError:
                continue
        return sorted(found, key=lambda submission: (submission.created, submission.token))

    def latest(self) -> dict[str, Submission]:
        """The submission that each run belongs to now: the last one that the scheduler may have."""
        return {
            run_id: submission
            for submission in self.read()
            if submission.state != "refused"
            for run_id, _ in submission.places()
        }
