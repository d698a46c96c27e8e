"""From a run to its record: adds what is known of the code, the machine and the spec."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness import environment
from subnetbench.harness.records import RunRecord, Score, Status, write_record
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.tasks import PRIMARY_METRIC

if TYPE_CHECKING:
    from subnetbench.harness.data import TaskData


def record_run(
    spec: RunSpec,
    folder: RunFolder,
    *,
    status: Status,
    started: datetime,
    scores: Sequence[Score] = (),
    seconds: float | None = None,
    train_seconds: float | None = None,
    data: "TaskData | None" = None,
    device: Any = None,
    budget: str = "",
    reason: str = "",
    error: str = "",
    sweep: str = "",
    study: str = "",
    trial: int | None = None,
    tuned: bool = False,
) -> Path:
    """Write the record of one attempt and return its path; `data` and `device` are None when it got not so far."""
    sha, dirty = environment.git_state()
    job, requeues = environment.slurm_state()
    ended = datetime.now(UTC)
    wall = (ended - started).total_seconds() if seconds is None else seconds
    gpus = spec.compute.processes if device is not None and device.type == "cuda" else 0
    return write_record(
        folder.results,
        RunRecord(
            run_id=spec.run_id,
            status=status,
            method=spec.method,
            preset=spec.config.get("preset", "default"),
            network=spec.network,
            dataset=spec.dataset,
            task=spec.task,
            protocol=data.protocol if data else "",
            data_digest=data.digest if data else "",
            seed=spec.seed,
            budget=budget,
            tuned=tuned,
            primary_metric=PRIMARY_METRIC[spec.task],
            scores=scores,
            config=spec.recipe(),
            config_hash=spec.config_hash,
            spec=spec.model_dump(mode="json"),
            versions=environment.versions(),
            sweep=sweep,
            study=study,
            trial=trial,
            error_kind=reason,
            error=error,
            wall_seconds=wall,
            train_seconds=train_seconds,
            gpu_hours=gpus * wall / 3600,
            world_size=spec.compute.processes,
            device=environment.device_name(device) if device is not None else "",
            threads=spec.compute.threads,
            precision=spec.compute.precision,
            git_sha=sha,
            git_dirty=dirty,
            host=environment.host(),
            slurm_job_id=job,
            n_requeue=requeues,
            started_at=started,
            finished_at=ended,
        ),
    )
