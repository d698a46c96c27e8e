"""What the jobs of an array need to know: the file `plan.json` in their folder, written before they are submitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.files import read_json, write_json
from subnetbench.harness.execution.settings import RunSettings

CodeChanges = Literal["refuse", "allow"]
"""Whether runs may continue under other code than they were submitted with."""


@dataclass(frozen=True)
class JobPlan:
    """The plan of one job array.

    `jobs[i]` are the ids of the runs that array task i does in turn; `gpus` are those of each process, `minutes` the
    time limit of a job. `own_settings`, by run id, are those of runs that differ from `settings`. `code` is the
    fingerprint of the program when they were submitted.
    """

    token: str
    results: Path
    jobs: tuple[tuple[str, ...], ...]
    processes: int
    gpus: int
    minutes: int
    settings: RunSettings
    own_settings: Mapping[str, RunSettings] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    code_changes: CodeChanges = "refuse"

    def settings_of(self, run_id: str) -> RunSettings:
        """The settings of one run."""
        return replace(self.own_settings.get(run_id, self.settings), code_changes=self.code_changes)

    def to_json(self) -> dict[str, Any]:  # open: plain JSON
        """The plan as plain JSON, which `from_json` reads."""
        return {
            "token": self.token,
            "results": str(self.results),
            "jobs": [list(runs) for runs in self.jobs],
            "processes": self.processes,
            "gpus": self.gpus,
            "minutes": self.minutes,
            "settings": self.settings.to_json(),
            "own_settings": {run: settings.to_json() for run, settings in self.own_settings.items()},
            "code": dict(self.code),
            "code_changes": self.code_changes,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """A plan from `to_json`, also of earlier versions, where `own_settings` held the differing fields alone.

        Raises:
            UserError: a setting cannot be used.
            KeyError: a field is missing.
        """
        common = plain["settings"]
        own = plain.get("own_settings", {})
        return cls(
            token=plain["token"],
            results=Path(plain["results"]),
            jobs=tuple(tuple(runs) for runs in plain["jobs"]),
            processes=plain["processes"],
            gpus=plain["gpus"],
            minutes=plain["minutes"],
            settings=RunSettings.from_json(common),
            own_settings={run: RunSettings.from_json({**common, **fields}) for run, fields in own.items()},
            code=plain.get("code", {}),
            code_changes=plain.get("code_changes", "refuse"),
        )

    def write(self, folder: Path) -> None:
        """Write the plan into the folder of its jobs. Raises `OSError`."""
        write_json(plan_file(folder), self.to_json(), indent=1)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The plan in the folder of some jobs. Raises `SubnetbenchError` when it is missing or damaged."""
        plain = read_json(plan_file(folder))
        try:
            return cls.from_json(plain or {})
        except (KeyError, TypeError) as error:
            raise SubnetbenchError(f"{plan_file(folder)} is missing or damaged: {error}") from None


def plan_file(folder: Path) -> Path:
    """Where the plan of the jobs of a folder is."""
    return folder / "plan.json"
