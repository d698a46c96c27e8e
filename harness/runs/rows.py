"""Where many runs stand, one row each, from their files alone. A scheduler's view is added by `execution.slurm`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from subnetbench.harness.runs.folder import RunFolder, find_runs
from subnetbench.harness.runs.state import Failure, Heartbeat, RunState

DRIVER = "driver"
"""Stands for the id of a run where a job drives a tuning: its files are those of a run."""


class Loss(Enum):
    """What is known of a job that is gone without a word."""

    UNCONFIRMED = "whether it was submitted is not known; the same command finds out"
    FORGOTTEN = "its job is gone"
    """The queue no longer knows it; accounting may."""
    ENDED = "its job ended"
    """The scheduler says how."""


@dataclass
class RunRow:
    """Where a run stands. `rate` is steps a second; `job` and `requeues` are the scheduler's, where it has one.

    `detail` is for people: what a state means here, or why a run failed. `loss` is set for a run that is `lost`.
    """

    run: str
    results: Path
    state: RunState
    stage: str = ""
    epoch: int | None = None
    epochs: int | None = None
    rate: float | None = None
    seconds: float | None = None
    detail: str = ""
    job: str = ""
    requeues: int = 0
    loss: Loss | None = None

    @property
    def folder(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.results, self.run)

    def to_json(self) -> dict[str, object]:
        """The row as `status` prints it, numbers with their units in words."""
        return {
            "run": self.run,
            "results": str(self.results),
            "state": self.state,
            "stage": self.stage,
            "epoch": "" if self.epoch is None else f"{self.epoch}/{self.epochs}",
            "rate": "" if self.rate is None else f"{self.rate:.1f}/s",
            "seconds": "" if self.seconds is None else f"{self.seconds:.0f}",
            "job": self.job,
            "requeues": self.requeues,
            "detail": self.detail,
        }


def collect(results: Sequence[Path]) -> list[RunRow]:
    """The rows of all runs in some results folders, each after the job that drives its tuning."""
    return [_row(folder) for path in results for folder in folders_of(path)]


def folders_of(results: Path) -> list[RunFolder]:
    """The runs of a results folder, after the job that drives its tuning, where there is one."""
    driver = RunFolder(results, DRIVER)
    return [*([driver] if driver.path.is_dir() else []), *find_runs(results)]


def _row(folder: RunFolder) -> RunRow:
    heartbeat = folder.heartbeat() or Heartbeat()
    state = folder.state()
    failure = (folder.failure() if state == "failed" else None) or Failure("")
    detail = f"{failure.reason}: {failure.first_line}" if failure.reason else ""
    if state == "stale":
        detail = "no sign of life; the same command resumes it"
    return RunRow(
        run=folder.run_id,
        results=folder.results,
        state=state,
        stage=heartbeat.stage,
        epoch=heartbeat.epoch,
        epochs=heartbeat.epochs,
        rate=heartbeat.step / heartbeat.seconds if heartbeat.seconds and heartbeat.step else None,
        seconds=heartbeat.seconds or None,
        detail=detail,
    )
