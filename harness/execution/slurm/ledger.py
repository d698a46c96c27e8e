"""What was submitted, written down before it is submitted, so that nothing is ever submitted twice.

    <results>/slurm/lock                    held by whoever submits or cancels
    <results>/slurm/submissions/TOKEN.json  one array each: its runs, and its job number once it is known
    <results>/slurm/jobs/TOKEN/             mode 700: batch file, pickles, logs of the jobs

A token is part of its jobs' name. When the submitting process dies between submitting and noting the job's number,
the next one finds the jobs by that name. A job does nothing unless the ledger says that its run is its own.
"""

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from subnetbench.harness.core.files import file_lock, read_json, write_json

LOCK_SECONDS = 300.0

SubmissionState = Literal["submitting", "submitted", "refused", "lost", "cancelled", "blocked", "ended"]


@dataclass
class Submission:
    """One job array. `jobs[i]` are the ids of the runs that array task i does in turn.

    `after` are ids of runs that must finish first. States: `submitting` until the job number is known; `refused` by
    the scheduler; `lost` when the scheduler never knew it; `cancelled`; `blocked` was not submitted because a run
    that it starts from failed; `ended` when a driver has seen all its runs end and it need not be looked up any more.
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

    def jobs_of_runs(self) -> Iterator[tuple[str, str]]:
        """Every run with the id of the job that does it (empty when there is none)."""
        for index, runs in enumerate(self.jobs):
            for run_id in runs:
                yield run_id, f"{self.job}_{index}" if self.job else ""

    def job_of(self, run_id: str) -> str:
        """The id of the job that does a run of this submission; empty when there is none. Raises `KeyError`."""
        return dict(self.jobs_of_runs())[run_id]

    def to_json(self) -> dict[str, object]:
        """Plain JSON, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """A submission from `to_json`, of any version. Raises `TypeError` when it is none."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in known})


class Ledger:
    """The submissions of one results folder."""

    def __init__(self, results: Path) -> None:
        self.folder = results / "slurm"

    def exists(self) -> bool:
        return self.folder.is_dir()

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Wait for and hold the right to submit; yields a descriptor that keeps it for child processes.

        Raises `LockHeld` when somebody else holds it for too long.
        """
        (self.folder / "submissions").mkdir(parents=True, exist_ok=True)
        held = f"somebody else has been submitting this sweep for {LOCK_SECONDS:.0f} s; nothing was done"
        with file_lock(self.folder / "lock", LOCK_SECONDS, held) as descriptor:
            yield descriptor

    def new(
        self,
        sweep: str,
        jobs: list[list[str]],
        *,
        state: SubmissionState = "submitting",
        after: Sequence[str] = (),
        code: Mapping[str, str] | None = None,
    ) -> Submission:
        """A submission with a token of its own, not yet written."""
        token = uuid.uuid4().hex[:10]
        return Submission(token, f"{sweep[:40]}-{token}", jobs, state, after=list(after), code=dict(code or {}))

    def write(self, submission: Submission) -> None:
        """Put a submission on disk so that it outlives this process and this machine."""
        path = self.folder / "submissions" / f"{submission.token}.json"
        write_json(path, submission.to_json(), indent=1, durable=True)

    def jobs_folder(self, token: str) -> Path:
        return self.folder / "jobs" / token

    def read(self) -> list[Submission]:
        """All submissions, oldest first; a file that is none is left out."""
        found = []
        for path in (self.folder / "submissions").glob("*.json"):
            with contextlib.suppress(TypeError):
                found.append(Submission.from_json(read_json(path) or {}))
        return sorted(found, key=lambda submission: (submission.created, submission.token))

    def latest(self) -> dict[str, Submission]:
        """The submission that each run belongs to now: the last one that the scheduler may have."""
        return {
            run_id: submission
            for submission in self.read()
            if submission.state != "refused"
            for run_id, _ in submission.jobs_of_runs()
        }
