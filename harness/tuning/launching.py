"""Where the runs of trials are carried out. A driver needs nothing of a launcher but this interface."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from subnetbench.harness.launchers.local import Devices, LocalLauncher
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec

DIED = ("killed", "hang")
"""Reasons of failures that say nothing about the configuration: the same run may well succeed."""

CODE_CHANGED = "code-changed"
"""Reason of runs that a job refused to begin, because the program is not what it was when they were submitted."""

INPUT_SETTINGS = ("study", "trial", "split")
"""Settings of a run that its inputs get too."""


@dataclass(frozen=True)
class Ended:
    """A run that is over: `ending` is `finished`, `pruned`, `failed`, `interrupted`, `blocked` or `elsewhere`."""

    run_id: str
    ending: str
    time: float
    started: float
    """When the run got its slot, seconds since the epoch; `time` is when it was noticed that it gave it back."""


class TrialLauncher(Protocol):
    """Carries out runs side by side; the runs write their own folders below `results`, as any run does."""

    results: Path

    def start(self, spec: RunSpec, settings: dict[str, Any]) -> None:
        """Start a run, or queue it until there is room or its inputs are finished.

        A run that was interrupted goes on from its checkpoint. `settings` are fields of `RunSettings`.
        """

    def attach(self, spec: RunSpec, settings: dict[str, Any]) -> bool:
        """Take over a run that an earlier driver started, if it is still going on; False when it is not.

        What its files say of failures may be an earlier attempt's then.
        """

    def wait(self) -> list[Ended]:
        """The runs that ended since the last call; waits a moment for one, not longer."""

    def stop(self) -> None:
        """The driver goes: end the runs with a checkpoint, or let them go on where they can be attached to."""


class TrialsWithInputs(ABC):
    """What launchers have in common: the first trial that needs an input (a teacher) starts it.

    `endings` says how each run ended, also those that were finished before.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.endings: dict[str, str] = {}
        self._ended: list[Ended] = []
        self._started: dict[str, float] = {}

    def start(self, spec: RunSpec, settings: dict[str, Any]) -> None:
        for needed in spec.dependencies():
            if needed.run_id not in self._started or self._died(needed.run_id):
                self._begin(needed, {name: settings[name] for name in INPUT_SETTINGS if name in settings})
        self._begin(spec, settings)

    @abstractmethod
    def _submit(self, spec: RunSpec, settings: dict[str, Any]) -> None:
        """Start a run, or queue it until there is room and its inputs are finished."""

    def _begin(self, spec: RunSpec, settings: dict[str, Any]) -> None:
        self._started[spec.run_id] = time.time()
        if RunFolder(self.results, spec.run_id).state() == "finished":
            self.endings[spec.run_id] = "finished"
            self._note(spec.run_id, "finished", "")
        else:
            self._submit(spec, settings)

    def _died(self, run_id: str) -> bool:
        failure = RunFolder(self.results, run_id).failure() or {}
        return self.endings.get(run_id) == "failed" and failure.get("reason") in DIED

    def _note(self, run_id: str, event: str, detail: str) -> None:
        if event == "started":
            self._started[run_id] = time.time()
        elif event != "stopping":
            self._ended.append(Ended(run_id, event, time.time(), self._started[run_id]))

    def _take_ended(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended


class LocalTrials(TrialsWithInputs):
    """Trials on this machine; they end with their driver and go on from their checkpoints with the next one."""

    def __init__(self, results: Path, settings: dict[str, Any], devices: Devices) -> None:
        super().__init__(results)
        self._launcher = LocalLauncher(results, settings, devices, on_event=self._note)
        self.endings = self._launcher.endings

    def attach(self, spec: RunSpec, settings: dict[str, Any]) -> bool:
        return False

    def wait(self) -> list[Ended]:
        self._launcher.poll()
        return self._take_ended()

    def stop(self) -> None:
        self._launcher.stop()

    def _submit(self, spec: RunSpec, settings: dict[str, Any]) -> None:
        self._launcher.submit(spec, **settings)


LauncherFactory = Callable[[Path, dict[str, Any]], TrialLauncher]
"""Makes a launcher for a results folder and the settings that all its runs share."""
