"""SLURM's client programs, each call with a time limit; their output as plain values.

A scheduler that is overloaded or down makes its clients hang: nothing here waits longer than
`SUBNETBENCH_SLURM_SECONDS` (default 60) for one of them.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from subnetbench.harness.core.errors import SubnetbenchError

_QUEUE_FIELDS = ("JobArrayID", "State", "RestartCnt", "Name", "NodeList", "Reason")
_PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED")


class SchedulerError(SubnetbenchError):
    """A SLURM client refused, failed, or did not answer in time."""


class SchedulerSilent(SchedulerError):
    """A SLURM client did not answer in time; whether it did what it was asked to is not known."""


@dataclass(frozen=True)
class JobState:
    """One job (array task) as the scheduler sees it; `state` is SLURM's word for it."""

    job_id: str
    name: str
    state: str
    restarts: int = 0
    node: str = ""
    reason: str = ""

    @property
    def pending(self) -> bool:
        return self.state in _PENDING

    @property
    def running(self) -> bool:
        return self.state in _RUNNING

    @property
    def live(self) -> bool:
        """Whether it runs or will run."""
        return self.pending or self.running

    @property
    def held(self) -> bool:
        """Whether SLURM requeued it but will not start it by itself, as after a node that could not launch it."""
        return self.state in ("REQUEUE_HOLD", "SPECIAL_EXIT") or (self.pending and "requeued held" in self.reason)

    @property
    def hopeless(self) -> bool:
        """Whether it waits for a job that failed."""
        return self.pending and self.reason == "DependencyNeverSatisfied"


def time_limit() -> float:
    """Seconds that one call of a client may take."""
    return float(os.environ.get("SUBNETBENCH_SLURM_SECONDS") or 60)


def call(*command: str, keep_open: Sequence[int] = ()) -> str:
    """Standard output of a client.

    `keep_open` are file descriptors that the client inherits: a lock held through them is held until the client
    has ended, even when this process is killed before. Raises `SchedulerError`, or `SchedulerSilent` after the time
    limit.
    """
    # Inside a job, SLURM's variables would leak the present job's limits into new ones.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            pass_fds=tuple(keep_open),
            start_new_session=True,
        )
    except OSError as error:
        raise SchedulerError(f"{command[0]} cannot be started: {error.strerror}; is this a SLURM machine?") from None
    output, errors = _output_of(process, command[0])
    if process.returncode < 0:
        # As when SLURM signals all processes of a job that submits others.
        raise SchedulerSilent(f"{command[0]} was ended by {signal.Signals(-process.returncode).name}")
    if process.returncode != 0:
        raise SchedulerError(f"{command[0]} failed with status {process.returncode}: {_reason(errors)}")
    return output


def _output_of(process: "subprocess.Popen[str]", name: str) -> tuple[str, str]:
    try:
        return process.communicate(timeout=time_limit())
    except subprocess.TimeoutExpired:
        # With its children, which would keep the pipes open.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise SchedulerSilent(f"{name} did not answer within {time_limit():g} s") from None


def _reason(errors: str) -> str:
    """The first and the last line of what a client wrote to its error output, without its own name."""
    lines = [re.sub(r"^\w+: (error: )?", "", line) for line in errors.splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else "it gave no reason"


def queue(names: Iterable[str]) -> dict[str, JobState]:
    """All jobs with one of these names that `squeue` still knows, ended ones too, by `<array>_<index>`; one call."""
    wanted = ",".join(sorted(set(names)))
    if not wanted:
        return {}
    fields = ",".join(f"{field}:|" for field in _QUEUE_FIELDS)
    text = call("squeue", "--noheader", "--array", "--all", "--states=all", f"--name={wanted}", f"--Format={fields}")
    found = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) >= len(_QUEUE_FIELDS):
            job_id, state, restarts, name, node, reason = parts[: len(_QUEUE_FIELDS)]
            found[job_id] = JobState(
                job_id, name, state, int(restarts) if restarts.isdigit() else 0, node, reason.replace("_", " ")
            )
    return found


def keeps_running(job_id: str, name: str) -> bool:
    """Whether SLURM has other plans with a running job than ending it: a cancelled or preempted one is completing."""
    job = queue([name]).get(job_id)
    return job is not None and job.state == "RUNNING"


def accounting(names: Iterable[str], since: float) -> dict[str, JobState]:
    """How jobs with these names ended, as far as accounting remembers, by `<array>_<index>`; one call.

    `since` is when the first was submitted, seconds since the epoch. Raises `SchedulerError` where there is no
    accounting.
    """
    wanted = ",".join(sorted(set(names)))
    if not wanted:
        return {}
    # An hour earlier, for clocks that differ.
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 3600))
    options = (
        *("--noheader", "--parsable2", "--allocations"),
        *(f"--name={wanted}", f"--starttime={start}", "--format=JobID,State,JobName,NodeList,ExitCode"),
    )
    try:
        text = call("sacct", "--array", *options)
    except SchedulerSilent:
        raise
    except SchedulerError as error:
        # Before 23.02 the option is not known, and array tasks are listed one by one anyway.
        if "unrecognized option" not in str(error) and "invalid option" not in str(error):
            raise
        text = call("sacct", *options)
    found = {}
    for line in text.splitlines():
        job_id, state, name, node, status = (*line.split("|"), "", "", "", "", "")[:5]
        if job_id:
            found[job_id] = JobState(job_id, name, state.split(" ")[0], 0, node, f"exit status {status}")
    return found


def largest_array() -> int | None:
    """The most tasks that a job array may have here, or None when the scheduler does not say."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.MULTILINE)
    return int(match.group(1)) if match else None


def submit(script: str, keep_open: Sequence[int] = ()) -> str:
    """Submit a batch file and return the job's number."""
    output = call("sbatch", "--parsable", script, keep_open=keep_open)
    number = output.strip().splitlines()[-1].split(";")[0] if output.strip() else ""
    if not number.isdigit():
        raise SchedulerSilent(f"sbatch did not say the job's number, but {output.strip()!r}")
    return number


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended already are no error."""
    if job_ids:
        call("scancel", "--quiet", *job_ids)


def release(job_ids: Sequence[str]) -> None:
    """Let held jobs start."""
    if job_ids:
        call("scontrol", "release", *job_ids)


def requeue(job_id: str) -> None:
    """Put a running job back into the queue; it ends on its node."""
    call("scontrol", "requeue", job_id)
