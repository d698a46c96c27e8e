"""The files of one run, and what can be said of it by looking at them (without importing torch).

<results>/runs/<run id>/spec.json        the frozen spec
                        log.txt          everything the run printed
                        progress.json    heartbeat: where it stands
                        last.safetensors checkpoint to go on from, with the best weights so far inside
                        model.safetensors trained modules, once training is over
                        failure.json     why the last attempt failed
<results>/records/<run id>.parquet       the record, once it is finished or failed
"""

import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.errors import UserError

RunState = Literal["waiting", "running", "stale", "interrupted", "finished", "failed"]

STALE_AFTER_SECONDS = 120.0


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run below a results folder."""

    results: Path
    run_id: str

    @property
    def path(self) -> Path:
        return self.results / "runs" / self.run_id

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.json"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def model_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def failure_file(self) -> Path:
        return self.path / "failure.json"

    @property
    def finished_file(self) -> Path:
        return self.path / "finished.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def create(self, spec_json: str) -> None:
        """Make the folder and write the spec; raises `UserError` when the place cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.spec_file.exists():
                write_json_text(self.spec_file, spec_json)
        except OSError as error:
            raise UserError(f"the output folder cannot be written: {error.strerror}", field=str(self.results)) from None

    def state(self) -> RunState:
        """What the files say."""
        if self.finished_file.exists():
            return "finished"
        if self.failure_file.exists():
            return "failed"
        progress = self.progress()
        if progress is None:
            return "waiting"
        if progress.get("ended"):
            return "interrupted"
        age = time.time() - progress.get("time", 0.0)
        return "running" if age < STALE_AFTER_SECONDS else "stale"

    def progress(self) -> dict[str, Any] | None:
        """The last heartbeat, or None when the run never started."""
        return read_json(self.progress_file)

    def failure(self) -> dict[str, Any] | None:
        """Why the last attempt failed: `reason`, `message`, `attempt`."""
        return read_json(self.failure_file)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, or None when it is absent or not one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    beside = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        beside.write_text(text)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def find_runs(results: Path) -> list[RunFolder]:
    """All runs below a results folder, by id."""
    folder = results / "runs"
    return [RunFolder(results, path.name) for path in sorted(folder.glob("*")) if (path / "spec.json").exists()]
