"""The one module that knows Accelerate: one process a rank, trackers, and leaving a world so that another may follow.

Accelerate keeps its state in singletons that are meant to last as long as the process. Leaving them is private API,
so everything that would break with another version of the library is here, and a test names what is gone.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType

from subnetbench.harness.distributed.tracked import Tracked, remember

# With these Accelerate would wait for peers, even for one process.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")

_log = logging.getLogger(__name__)


class Ranks:
    """This process's part in a run: its rank among `size`, its device, and the trackers of the run."""

    def __init__(
        self, *, cpu: bool, alone: bool, trackers: Sequence[str] | None = None, folder: Path | None = None
    ) -> None:
        os.environ["ACCELERATE_USE_CPU"] = "true" if cpu else "false"
        if alone:
            for name in _RANK_VARIABLES:
                os.environ.pop(name, None)
        self._tracker_names = tuple(trackers or ())
        self._accelerator = Accelerator(
            cpu=cpu,
            log_with=list(trackers) if trackers else None,
            project_dir=None if folder is None else str(folder),
            step_scheduler_with_optimizer=False,
        )
        self.size: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.device: torch.device = self._accelerator.device

    def start_trackers(self, run: Tracked) -> None:
        """Open the trackers; one that cannot be opened is left out, with a warning."""
        if self.rank:
            return
        opened = []
        for name in self._tracker_names:
            try:
                opened += self._open(name, run)
            except Exception as error:  # Each library has errors of its own, and none of them may end a run.
                _log.warning("%s is left out, the run is not tracked there: %s", name, error)
        self._accelerator.trackers = opened

    def _open(self, name: str, run: Tracked) -> list[GeneralTracker]:
        accelerator = self._accelerator
        accelerator.log_with, accelerator.trackers = [LoggerType(name)], []
        accelerator.init_trackers(run.project_of(name), init_kwargs={name: run.options_of(name)})
        for tracker in accelerator.trackers:
            remember(name, tracker.tracker, run)
            if name != "tensorboard":  # It would make a folder and an event file of every start.
                tracker.store_init_configuration(dict(run.config))
        opened: list[GeneralTracker] = accelerator.trackers
        return opened

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values at a step, to all trackers."""
        self._accelerator.log(dict(values), step=step)

    def leave(self) -> None:
        """End the trackers and the process group, so that a new world may be opened in this process."""
        self._accelerator.end_training()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        PartialState._reset_state()
