"""Where the runs of trials are carried out. A driver needs nothing of a launcher but this interface."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from subnetbench.harness.execution.devices import Devices
from subnetbench.harness.execution.local import LocalLauncher
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import RunStatus

DIED = ("killed", "hang")
"""Reasons of failures that are not the configuration's: the same run may well succeed."""

CODE_CHANGED = "code-changed"
"""Reason of runs that a job refused to begin, because the program is not what it was when they were submitted."""


@dataclass(frozen=True)
class Ended:
    """A run that is over: `status` is `finished`, `pruned`, `failed`, `interrupted`, `blocked` or `elsewhere`."""

    run_id: str
    status: str
    time: float
    started: float
    """When the run got its slot, seconds since the epoch; `time` is when it was noticed that it gave it back."""


class TrialLauncher(Protocol):
    """Carries out runs side by side; the runs write their own folders below `results`, as any run does.

    `settings` are what the settings of each run are made from.
    """

    results: Path
    settings: RunSettings

    def start(self, spec: RunSpec, settings: RunSettings) -> None:
        """Start a run, or queue it until there is room or its inputs are finished.

        A run that was interrupted resumes from its checkpoint.
        """

    def attach(self, spec: RunSpec, settings: RunSettings) -> bool:
        """Take over a run that an earlier driver started, if it is still under way; False when it is not.

        Failures in its files may then be those of an earlier attempt.
        """

    def wait(self) -> list[Ended]:
        """The runs that ended since the last call; waits a moment for one, not longer."""

    def stop(self) -> None:
        """The driver goes: end the runs with a checkpoint, or leave them running where the next driver can attach to them."""


class TrialsWithInputs(ABC):
    """What launchers have in common: the first trial that needs an input (a teacher) starts it.

    `statuses` says how each run ended, also those that were finished before.
    """

    def __init__(self, results: Path, settings: RunSettings) -> None:
        self.results = results
        self.settings = settings
        self.statuses: dict[str, RunStatus] = {}
        self._ended: list[Ended] = []
        self._started: dict[str, float] = {}

    def start(self, spec: RunSpec, settings: RunSettings) -> None:
        for needed in spec.dependencies():
            if needed.run_id not in self._started or self._died(needed.run_id):
                # An input reports to no study, and no search chose its config.
                self._begin(needed, replace(settings, callback=None, tuned=False, search_cost={}))
        self._begin(spec, settings)

    @abstractmethod
    def _submit(self, spec: RunSpec, settings: RunSettings) -> None:
        """Start a run, or queue it until there is room and its inputs are finished."""

    def _begin(self, spec: RunSpec, settings: RunSettings) -> None:
        self._started[spec.run_id] = time.time()
        if RunFolder(self.results, spec.run_id).state() == "finished":
            self.statuses[spec.run_id] = "finished"
            self._note(spec.run_id, "finished", "")
        else:
            self._submit(spec, settings)

    def _died(self, run_id: str) -> bool:
        failure = RunFolder(self.results, run_id).failure()
        return self.statuses.get(run_id) == "failed" and failure is not None and failure.reason in DIED

    def _note(self, run_id: str, event: str, detail: str) -> None:
        if event == "started":
            self._started[run_id] = time.time()
        elif event not in ("stopping", "resuming"):
            self._ended.append(Ended(run_id, event, time.time(), self._started[run_id]))

    def _take_ended(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended


class LocalTrials(TrialsWithInputs):
    """Trials on this machine; they end with their driver and resume from their checkpoints with the next one."""

    def __init__(self, results: Path, settings: RunSettings, devices: Devices) -> None:
        super().__init__(results, settings)
        self._launcher = LocalLauncher(results, settings, devices, on_event=self._note)
        self.statuses = self._launcher.statuses

    def attach(self, spec: RunSpec, settings: RunSettings) -> bool:
        return False

    def wait(self) -> list[Ended]:
        self._launcher.poll()
        return self._take_ended()

    def stop(self) -> None:
        self._launcher.stop()

    def _submit(self, spec: RunSpec, settings: RunSettings) -> None:
        self._launcher.submit(spec, settings)


LauncherFactory = Callable[[Path, RunSettings], TrialLauncher]
"""Makes a launcher for a results folder and the settings that all its runs share."""
