"""Where runs stand, from their files and one look at SLURM's queue. Nothing here imports torch."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from subnetbench.harness.api.lookup import Paths, RunReference, existing
from subnetbench.harness.execution.slurm.queue_watch import QueueWatch, job_log_of
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.lookup import find_matching, results_folders, run_folder_at
from subnetbench.harness.runs.rows import DRIVER, RunRow, collect, folders_of

if TYPE_CHECKING:
    import pandas as pd

ACTIVE = ("running", "queued", "starting", "stopping", "waiting for input", "stale")
SCHEDULER_SECONDS = 15.0
FILES_SECONDS = 2.0


@dataclass(frozen=True)
class Status:
    """Where runs stand. `notes` say what could not be asked; `on_slurm`: whether any of the folders has jobs."""

    rows: list[RunRow]
    notes: list[str]
    on_slurm: bool

    @property
    def frame(self) -> "pd.DataFrame":
        """One line a run: run, results, state, stage, epoch, rate (steps a second), seconds, job, detail."""
        import pandas as pd

        return pd.DataFrame([row.to_json() for row in self.rows])

    @property
    def active(self) -> bool:
        """Whether anything runs or is queued."""
        return any(row.state in ACTIVE for row in self.rows)

    def summary(self) -> str:
        """The number of runs in each state, in words; the driver of a tuning is none."""
        counts = Counter(row.state for row in self.rows if row.run != DRIVER)
        return f"{counts.total()} runs" + "".join(f", {count} {state}" for state, count in sorted(counts.items()))


@dataclass(frozen=True)
class RunLog:
    """The log of a run, and of its last job on a cluster, where there was one. `failure`: why it failed."""

    run_id: str
    state: str
    log_file: Path
    job_log: Path | None
    failure: str

    def tail(self, lines: int = 50) -> str:
        """The last lines of the log, or of the job's log where the run has none yet."""
        for path in (self.log_file, self.job_log):
            if path is not None and path.exists():
                return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
        return ""


def status(folders: Paths | None = None) -> Status:
    """Where every run stands: queued, waiting, running with its epoch, finished, failed with the error.

    Args:
        folders: Results folders; None: all in `results/`.

    Raises:
        UserError: A folder does not exist.

    Example:
        >>> from subnetbench import status
        >>> status(["results/quickstart"]).frame[["state"]].values.tolist()
        [['finished']]
    """
    return _look(folders, QueueWatch())


def watch(folders: Paths | None = None) -> Iterator[Status]:
    """`status` again and again, every few seconds, until nothing runs or is queued.

    Args:
        folders: Results folders; None: all in `results/`.

    Raises:
        UserError: A folder does not exist.

    Example:
        >>> from subnetbench.harness import api
        >>> [shown.summary() for shown in api.watch(["results/quickstart"])]
        ['1 runs, 1 finished']
    """
    queue = QueueWatch()
    while True:
        shown = _look(folders, queue)
        yield shown
        if not shown.active:
            return
        time.sleep(SCHEDULER_SECONDS if shown.on_slurm else FILES_SECONDS)


def logs(run: RunReference, *, results: Path | str | None = None) -> list[RunLog]:
    """The logs of the runs whose ids begin with `run`; `driver` is the job that drives a tuning.

    Args:
        run: Run folder, run id, or the beginning of one.
        results: Results folder; None: all in `results/`.

    Raises:
        UserError: There is no such run or folder.

    Example:
        >>> from subnetbench.harness import api
        >>> [(log.state, log.failure) for log in api.logs("edge_popup-emoji-s0", results="results/quickstart")]
        [('finished', '')]
    """
    by_path = run_folder_at(Path(run))
    if by_path is not None:
        return [_log_of(by_path)]
    given = [Path(results)] if results else []
    folders = [each for folder in results_folders(given, trials=True) for each in folders_of(folder)]
    return [_log_of(folder) for folder in find_matching(os.fspath(run), folders)]


def _look(folders: Paths | None, queue: QueueWatch) -> Status:
    rows = collect(results_folders(existing(() if folders is None else folders), trials=True))
    on_slurm = queue.look_at_all(rows)
    return Status(rows, queue.take_notes(), on_slurm)


def _log_of(folder: RunFolder) -> RunLog:
    failure = folder.failure()
    why = f"{failure.reason}: {failure.message}" if failure else ""
    return RunLog(folder.run_id, folder.state(), folder.log_file, job_log_of(folder), why)
