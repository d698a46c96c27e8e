"""From a run to its record: adds what is known of the code, the machine and the spec."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness.core import environment
from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.files import read_json, write_json
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import network_of, searched_fields_of
from subnetbench.harness.records import RunRecord, Score, Status, write_record
from subnetbench.harness.records.items_file import items_of, write_items
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Ledger
from subnetbench.harness.runs.state import Failure, Finished

if TYPE_CHECKING:
    import torch

    from subnetbench.harness.data.splits import TaskData


def record_run(
    spec: RunSpec,
    folder: RunFolder,
    *,
    settings: RunSettings,
    status: Status,
    started: datetime,
    scores: Sequence[Score] = (),
    seconds: float | None = None,
    train_seconds: float | None = None,
    ledger: Ledger | None = None,
    data: "TaskData | None" = None,
    device: "torch.device | None" = None,
    budget: str = "",
    provenance: Provenance | None = None,
    failure: Failure | None = None,
) -> Path:
    """Write the scores by item and the record of one attempt; return its path. `data`, `device`: None if not known.

    Args:
        seconds: wall time of all attempts together; without it, that since `started`.
        train_seconds: the part of it that was training.
        ledger: what the run and its inputs spent; None where its training failed.
        budget: epochs and images, in words, as the method gives them.
        provenance: what the run stands on; None: it got not so far.
        failure: why the attempt failed or was pruned.

    Raises:
        SubnetbenchError: the record cannot be written.
    """
    ended = datetime.now(UTC)
    wall = (ended - started).total_seconds() if seconds is None else seconds
    gpus = spec.compute.processes if device is not None and device.type == "cuda" else 0
    record = replace(
        _described(spec, settings, status, started, ended),
        protocol=data.protocol if data else "",
        primary_metric=(data.primary_metric if data else "") or PRIMARY_METRIC[spec.task],
        data_digest=data.digest if data else "",
        budget=budget,
        scores=scores,
        error_kind=failure.reason if failure else "",
        error=failure.message if failure else "",
        wall_seconds=wall,
        train_seconds=train_seconds,
        **_spent(ledger),
        gpu_hours=gpus * wall / 3600,
        device=environment.device_name(device) if device is not None else "",
    )
    record = replace(_announced(folder, record), items_digest=_write_items(folder.results, record, settings))
    return write_record(folder.results, record if provenance is None else _standing_on(record, provenance))


def record_evaluation(
    spec: RunSpec,
    results: Path,
    *,
    run_id: str,
    data: "TaskData",
    scores: Sequence[Score],
    of_training: Mapping[str, Any],  # open: columns of a record
    ledger: Ledger,
    provenance: Provenance,
    device: "torch.device",
    started: datetime,
    ended: datetime,
) -> Path:
    """Write what a finished run scores on other data than its own, or otherwise; return the record's path.

    Args:
        spec: The run.
        results: Its results folder.
        run_id: Name of the evaluation, which ends in the run's.
        data: What it was evaluated on, and how, in its protocol.
        scores: What was found.
        of_training: What the run's own record says of its training, by column.
        ledger: What its training spent.
        provenance: What it stands on.
        device: Where it was evaluated.
        started: When the evaluation began.
        ended: When it was over.

    Raises:
        SubnetbenchError: the record cannot be written.
    """
    settings = RunSettings(trackers=())
    record = replace(
        _described(spec, settings, "finished", started, ended),
        run_id=run_id,
        dataset=data.dataset,
        protocol=data.protocol,
        data_digest=data.digest,
        primary_metric=data.primary_metric or PRIMARY_METRIC[spec.task],
        scores=scores,
        **_spent(ledger),
        **of_training,
        device=environment.device_name(device),
    )
    record = replace(record, items_digest=_write_items(results, record, settings))
    return write_record(results, _standing_on(record, provenance))


def _announced(folder: RunFolder, record: RunRecord) -> RunRecord:
    """The record, after writing down for `adopt` that a finished run is about to leave it."""
    if record.status != "finished":
        return record
    try:
        write_json(folder.recording_file, {"record_id": record.record_id}, durable=True)
    except OSError as error:
        raise SubnetbenchError(f"cannot write {folder.recording_file}: {error.strerror}") from error
    return record


def finish(folder: RunFolder, record: str) -> None:
    """Say that a run is finished, by the name of its record's file. Raises `OSError`."""
    folder.write_finished(Finished(record))
    folder.recording_file.unlink(missing_ok=True)


def adopt(folder: RunFolder) -> bool:
    """Finish a run whose process died between its record and the word that it is finished; False: there is no record.

    The record is known by the id that was written down before it, so that records of earlier trainings of the same
    spec are never taken for this one's. To be called under the run's lock. Raises `OSError`.
    """
    announced = (read_json(folder.recording_file) or {}).get("record_id")
    if not isinstance(announced, str):
        return False
    runs = read_records(folder.results, ["record_id", "run_id", "status"]).runs
    for line in runs.select(["record_id", "run_id", "status", "file"]).to_pylist():
        if (line["record_id"], line["run_id"], line["status"]) == (announced, folder.run_id, "finished"):
            finish(folder, Path(line["file"]).name)
            return True
    return False


def _standing_on(record: RunRecord, provenance: Provenance) -> RunRecord:
    """The record with what the run stands on; its precision is the one that was computed with."""
    columns, numerics = provenance.columns, provenance.numerics
    return replace(
        record,
        precision=numerics.precision if numerics else record.precision,
        code_digest=columns.code_digest,
        files_digest=columns.files_digest,
        numerics=columns.numerics,
        provenance_json=columns.provenance_json,
    )


def _write_items(results: Path, record: RunRecord, settings: RunSettings) -> str:
    """Write the scores by item of a finished run and return the digest of their file; empty: there is none.

    Trials of a search leave none: there are many of them, and only their means are compared.
    """
    if record.status != "finished" or not settings.items or settings.trial is not None:
        return ""
    items = items_of(record.scores)
    return write_items(results, record.record_id, items).digest if len(items) else ""


def _described(spec: RunSpec, settings: RunSettings, status: Status, started: datetime, ended: datetime) -> RunRecord:
    """The record of an attempt with all that its spec, its settings, the code and the machine say."""
    sha, dirty = environment.git_state()
    job, requeues = environment.slurm_state()
    return RunRecord(
        run_id=spec.run_id,
        status=status,
        method=spec.method,
        preset=spec.config.get("preset", "default"),
        network=network_of(spec),
        dataset=spec.dataset,
        task=spec.task,
        protocol="",
        data_digest="",
        seed=spec.seed,
        tuned=settings.tuned,
        primary_metric=PRIMARY_METRIC[spec.task],
        config=spec.recipe(),
        config_hash=spec.config_hash,
        spec=spec.model_dump(mode="json"),
        versions=environment.versions(),
        sweep=settings.sweep,
        study=settings.study,
        searched_fields=",".join(sorted({*searched_fields_of(spec), *settings.searched})),
        trial=settings.trial,
        world_size=spec.compute.processes,
        threads=spec.compute.threads,
        precision=spec.compute.precision,
        git_sha=sha,
        git_dirty=dirty,
        host=environment.host(),
        slurm_job_id=job,
        n_requeue=requeues,
        started_at=started,
        finished_at=ended,
    )


def _spent(ledger: Ledger | None) -> dict[str, Any]:  # open: columns of a record
    if ledger is None:
        return {}
    names = ("training_macs", "images_seen", "steps", "energy_joules")
    own = {name: None if (value := getattr(ledger.own, name)) is None else float(value) for name in names}
    inputs = ledger.input_training_macs
    return {**own, "input_training_macs": None if inputs is None else float(inputs), "spent_json": ledger.to_text()}


def record_failure(
    spec: RunSpec, folder: RunFolder, failure: Failure, *, settings: RunSettings, started: datetime
) -> None:
    """Write down for a run that cannot do it itself that it failed: its failure file, and a record.

    Raises:
        OSError: the failure file cannot be written.
        SubnetbenchError: the record cannot be written.
    """
    folder.write_failure(failure)
    record_run(spec, folder, settings=settings, status="failed", started=started, failure=failure)
