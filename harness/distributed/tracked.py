"""What experiment trackers are told of a run: its project, its name, its config, and the folder for what they write."""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Plain = str | int | float | bool
_ID_FILE = "tracked_as"
_MLFLOW_FILE = "mlflow_run"


@dataclass(frozen=True)
class Tracked:
    """A run as trackers show it. `config` is flat; `folder`, inside the run's, is where their files lie."""

    project: str
    name: str
    config: Mapping[str, Plain]
    folder: Path

    def identifier(self) -> str:
        """The same for all attempts at one training, another one when the run is trained afresh.

        Raises `OSError` when the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / _ID_FILE
        try:
            with open(file, "x") as new:
                new.write(f"{self.name}-{secrets.token_hex(4)}")
        except FileExistsError:
            pass
        return file.read_text()

    def project_of(self, tracker: str) -> str:
        """The project's name; of TensorBoard, the folder for its files."""
        if tracker == "tensorboard":
            return self.folder.name
        return (os.environ.get("WANDB_PROJECT") if tracker == "wandb" else None) or self.project

    def options_of(self, tracker: str) -> dict[str, object]:
        """What else a tracker is started with."""
        return _OPTIONS[tracker](self) if tracker in _OPTIONS else {}


def _wandb(run: Tracked) -> dict[str, object]:
    return {"name": run.name, "id": run.identifier(), "resume": "allow", "dir": str(run.folder)}


def _mlflow(run: Tracked) -> dict[str, object]:
    run.folder.mkdir(parents=True, exist_ok=True)
    # Unless the user has named a server or folder. It has no option for that.
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{run.folder / 'mlflow.db'}")
    file = run.folder / _MLFLOW_FILE
    return {"run_name": run.name, "run_id": file.read_text() if file.exists() else None}


_OPTIONS: dict[str, Callable[[Tracked], dict[str, object]]] = {
    "clearml": lambda run: {"task_name": run.name},
    "dvclive": lambda run: {"dir": str(run.folder / "dvclive"), "resume": True, "save_dvc_exp": False},
    "mlflow": _mlflow,
    "swanlab": lambda run: {"experiment_name": run.name, "logdir": str(run.folder / "swanlab")},
    "trackio": lambda run: {"name": run.name, "resume": "allow"},
    "wandb": _wandb,
}
# The others know neither a name beside the project nor a folder.


def remember(tracker: str, started: Any, run: Tracked) -> None:
    """Keep the id that MLflow chose for a run, so that the next attempt continues it."""
    if tracker == "mlflow":
        (run.folder / _MLFLOW_FILE).write_text(started.info.run_id)
