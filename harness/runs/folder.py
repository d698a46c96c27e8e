"""The files of one run, and its state as they show it (without importing torch).

<results>/runs/<run id>/spec.json        the frozen spec
                        log.txt          everything the run printed
                        progress.json    heartbeat: where it stands
                        last.safetensors checkpoint to resume from, with the best weights so far inside
                        model.safetensors trained modules, once training is over
                        failure.json     why the last attempt failed
                        provenance.json  what the run stands on: data, files, code, numerics, environment
                        recording.json   the id of its record, while that is being written
                        finished.json    that it is finished, and the name of its record
<results>/records/<run id>-<attempt>.parquet  a record for each attempt that finished or failed
<results>/manifests/<digest>.parquet          the image files of a split, one by one
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import LockHeld, file_lock, read_json, write_atomically, write_json
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.state import Failure, Finished, Heartbeat, RunState

TRACKERS = "trackers"
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
    def provenance_file(self) -> Path:
        return self.path / "provenance.json"

    @property
    def finished_file(self) -> Path:
        return self.path / "finished.json"

    @property
    def recording_file(self) -> Path:
        """The id of the record that a finished run is writing, until `finished_file` names it."""
        return self.path / "recording.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def create(self, spec_json: str) -> None:
        """Make the folder and write the spec; raises `UserError` when that is not allowed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.spec_file.exists():
                write_atomically(self.spec_file, spec_json, durable=False)
        except OSError as error:
            raise UserError(f"the output folder cannot be written: {error.strerror}", field=str(self.results)) from None

    def is_live(self) -> bool:
        """Whether a process works on the run: it gave a sign of life lately, or holds the run's lock."""
        if self.state() == "running":
            return True
        if not self.lock_file.exists():
            return False
        try:
            with file_lock(self.lock_file, 0.0):
                return False
        except LockHeld:
            return True
        except OSError:
            return True  # it cannot be told: nobody loses anything by waiting

    def state(self) -> RunState:
        """What the files say."""
        if self.finished_file.exists():
            return "finished"
        if self.failure_file.exists():
            return "failed"
        heartbeat = self.heartbeat()
        if heartbeat is None:
            return "waiting"
        if heartbeat.ended:
            return "interrupted"
        return "running" if heartbeat.age < STALE_AFTER_SECONDS else "stale"

    def forget(self) -> None:
        """Remove all that was trained and all that is said of it, so that the run begins afresh; its log stays.

        The caller sees to it that nobody works on the run. Raises `OSError`.
        """
        said = (self.finished_file, self.recording_file, self.failure_file, self.progress_file, self.provenance_file)
        for path in (*said, self.last_checkpoint, self.model_file):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.trackers, ignore_errors=True)

    @property
    def trackers(self) -> Path:
        """What trackers write."""
        return self.path / TRACKERS

    def heartbeat(self) -> Heartbeat | None:
        """The last heartbeat, or None when the run never started."""
        plain = read_json(self.progress_file)
        return None if plain is None else Heartbeat.from_json(plain)

    def write_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Say where the run stands. Raises `OSError`."""
        write_json(self.progress_file, heartbeat.to_json())

    def failure(self) -> Failure | None:
        """Why the last attempt failed, or None when it did not."""
        plain = read_json(self.failure_file)
        return None if plain is None else Failure.from_json(plain)

    def write_failure(self, failure: Failure) -> None:
        """Say why the run failed. Raises `OSError`."""
        write_json(self.failure_file, failure.to_json())

    def provenance(self) -> Provenance | None:
        """What the run stands on; None where the file is not there or damaged, as where an earlier version made it."""
        plain = read_json(self.provenance_file)
        return None if plain is None else Provenance.from_whole(plain)

    def write_provenance(self, provenance: Provenance) -> None:
        """Say what the run stands on. Raises `OSError`."""
        write_json(self.provenance_file, provenance.to_json(), indent=1)

    def finished(self) -> Finished | None:
        """That the run is finished, or None when it is not."""
        plain = read_json(self.finished_file)
        return None if plain is None else Finished.from_json(plain)

    def write_finished(self, finished: Finished) -> None:
        """Say that the run is finished; nothing is done for it any more. Raises `OSError`."""
        write_json(self.finished_file, finished.to_json())

    def record_file(self) -> Path | None:
        """The record of the finished run, or None when it is not finished. It may have been merged into another."""
        finished = self.finished()
        return self.results / "records" / Path(finished.record).name if finished and finished.record else None


def find_runs(results: Path) -> list[RunFolder]:
    """All runs below a results folder, by id."""
    folder = results / "runs"
    return [RunFolder(results, path.name) for path in sorted(folder.glob("*")) if (path / "spec.json").exists()]
