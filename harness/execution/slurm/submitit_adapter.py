"""Everything that touches submitit, private parts of it among them; the rest of the package does not import it.

Private: `submitit.slurm.slurm._make_sbatch_string` and `submitit.JobEnvironment._usr_sig`.
"""

import re
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from submitit import JobEnvironment
from submitit.core.submission import process_job
from submitit.core.utils import DelayedSubmission
from submitit.helpers import TorchDistributedEnvironment
from submitit.slurm import slurm

from subnetbench.harness.core.errors import UserError

__all__ = ["DelayedSubmission", "JobEnvironment", "batch_file", "do_job", "rank_environment", "user_signal"]

_STAND_IN = Path("/the-folder-of-the-jobs")
Options = dict[str, str | int | float | bool]
"""Options of sbatch by their long names."""


def batch_file(
    command: str,
    folder: Path,
    name: str,
    count: int,
    *,
    setup: Sequence[str],
    srun_options: Sequence[str],
    directives: Mapping[str, str | int],
    options: Options,
) -> str:
    """The text of a batch file for an array of `count` jobs.

    Args:
        command: what each task runs.
        folder: where logs are written.
        name: the jobs' name.
        count: jobs in the array.
        setup: shell lines before the command.
        srun_options: of the step that runs the command.
        directives: submitit's keywords for what a job requests.
        options: further options of sbatch by their long names; False leaves one out.
    """
    pattern = _as_pattern(folder)
    text = str(
        slurm._make_sbatch_string(
            command=command,
            folder=_STAND_IN,
            job_name=name,
            map_count=count,
            setup=list(setup),
            srun_args=list(srun_options),
            stderr_to_stdout=True,
            wckey=None,
            additional_parameters={k.replace("_", "-"): v for k, v in options.items() if v is not False},
            **directives,
        )
    )
    # Put in here, because submitit takes `%j` of a folder's name for the number of the job.
    return re.sub(
        rf"(--output[= ])(\S*{_STAND_IN}\S*)",
        lambda found: found[1] + shlex.quote(found[2].replace(str(_STAND_IN), pattern)),
        text,
    )


def _as_pattern(folder: Path) -> str:
    """A folder as sbatch wants it in the names of output files, where `%` begins a placeholder.

    Raises `UserError` for characters that no form of writing keeps as they are.
    """
    found = re.search(r"[\\\"'\x00-\x1f]", str(folder))
    if found is not None:
        raise UserError(
            f"SLURM cannot write to a folder with {found[0]!r} in its path",
            field="--out",
            value=str(folder),
            allowed="a path without backslashes, quotes and control characters",
        )
    return str(folder).replace("%", "%%")


def user_signal() -> signal.Signals:
    """The signal by which SLURM announces the end of a job."""
    return signal.Signals(JobEnvironment._usr_sig())


def write_work(path: Path, work: Callable[..., object], run_ids: Sequence[str], minutes: int, timeouts: int) -> None:
    """Write what submitit calls in a job; it appears whole. `timeouts` is how often it may be queued again."""
    submission = DelayedSubmission(work, *run_ids)
    submission.set_timeout(minutes, timeouts)
    beside = path.with_suffix(".tmp")
    submission.dump(beside)
    beside.rename(path)


def do_job(folder: Path) -> None:
    """Do what `write_work` wrote for this task's job, with submitit's answers to signals."""
    process_job(folder)


def rank_environment() -> dict[str, str]:
    """The variables by which torch finds this task's rank and its peers."""
    world = TorchDistributedEnvironment()
    return {
        "MASTER_ADDR": world.master_addr,
        "MASTER_PORT": str(world.master_port),
        "RANK": str(world.rank),
        "WORLD_SIZE": str(world.world_size),
        "LOCAL_RANK": str(world.local_rank),
        "LOCAL_WORLD_SIZE": str(world.local_world_size),
    }
