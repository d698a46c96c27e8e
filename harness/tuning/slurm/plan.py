"""What the job that drives a tuning needs to know: the file `plan.json` in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.files import read_json, write_json
from subnetbench.harness.execution.slurm.job_plan import CodeChanges, plan_file
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.tuning.studies import TuningSettings
from subnetbench.harness.tuning.tuning_file import TuningFile


@dataclass(frozen=True)
class DriverPlan:
    """A tuning and how it is carried out, with the results folder in `settings`.

    `token` is that of the submission in the ledger, `code` the fingerprint of the program when it was submitted.
    """

    token: str
    content: TuningFile
    cluster: Cluster
    settings: TuningSettings
    plugins: tuple[Path, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    code_changes: CodeChanges = "refuse"

    @property
    def results(self) -> Path:
        """The results folder of the tuning."""
        return Path(self.settings.results or ".")

    def to_json(self) -> dict[str, Any]:  # open: plain JSON
        """The plan as plain JSON, which `from_json` reads."""
        return {
            "token": self.token,
            "results": str(self.results),
            "settings": {
                "file": self.content.model_dump(mode="json", exclude_unset=True),
                "cluster": self.cluster.model_dump(mode="json", exclude_unset=True),
                "storage": self.settings.storage,
                "workers": self.settings.workers,
                "data_root": str(self.settings.data_root),
                "trackers": list(self.settings.trackers),
                "items": self.settings.items,
                "final": self.settings.final,
                "plugins": [str(path) for path in self.plugins],
            },
            "code": dict(self.code),
            "code_changes": self.code_changes,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """A plan from `to_json`.

        Raises:
            UserError: the tuning file or the profile in it cannot be used.
            KeyError: a field is missing.
        """
        stored = plain["settings"]
        settings = TuningSettings(
            results=Path(plain["results"]),
            storage=stored["storage"],
            workers=stored["workers"],
            data_root=Path(stored["data_root"]),
            trackers=tuple(stored["trackers"]),
            items=stored.get("items", True),
            final=stored["final"],
        )
        return cls(
            token=plain["token"],
            content=TuningFile.parse(stored["file"], where="tuning"),
            cluster=Cluster.parse(stored["cluster"], where="profile"),
            settings=settings,
            plugins=tuple(map(Path, stored["plugins"])),
            code=plain["code"],
            code_changes=plain["code_changes"],
        )

    def write(self, folder: Path) -> None:
        """Write the plan into the job's folder. Raises `OSError`."""
        write_json(plan_file(folder), self.to_json(), indent=1)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The plan in a job's folder. Raises `SubnetbenchError` when it is missing or damaged."""
        try:
            return cls.from_json(read_json(plan_file(folder)) or {})
        except (KeyError, TypeError) as error:
            raise SubnetbenchError(f"{plan_file(folder)} is missing or damaged: {error}") from None
