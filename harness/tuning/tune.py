"""Tuning from Python: everything that `subnetbench tune` does."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack, get_args

from subnetbench.harness.core.errors import check_at_least, check_choice
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.execution.slurm.job_plan import CodeChanges
from subnetbench.harness.execution.slurm.profile import Cluster, read_cluster
from subnetbench.harness.execution.trackers import check_trackers
from subnetbench.harness.tuning.describe import SearchOptions, describe_tuning
from subnetbench.harness.tuning.result import StudyResult, TuneResult, TuneStatus
from subnetbench.harness.tuning.slurm.submit import slurm_launcher, slurm_workers, submit_driver
from subnetbench.harness.tuning.slurm.trials import Hooks
from subnetbench.harness.tuning.studies import Lines, TuningSettings, read_studies, run_studies
from subnetbench.harness.tuning.tuning_file import TuningFile


def tune(
    file_or_method: TuningFile | Path | str,
    dataset: str | None = None,
    *,
    results: Path | str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    runs_per_gpu: int = 1,
    data_root: Path | str | None = None,
    trackers: list[str] | None = None,
    items: bool = True,
    final: bool = True,
    dry_run: bool = False,
    on: Literal["here", "slurm"] = "here",
    driver: Literal["slurm", "here"] = "slurm",
    cluster: Cluster | str | None = None,
    code_changes: CodeChanges = "refuse",
    progress: Lines = lambda line: None,
    **search: Unpack[SearchOptions],
) -> TuneResult:
    """Search hyper-parameters on validation data, then retrain the best with fresh seeds; resumes what exists.

    >>> import tempfile
    >>> from subnetbench.harness import tune
    >>> found = tune("dense", "emoji", trials=20, config={"epochs": 4}, dry_run=True)
    >>> found.status, [dimension.name for dimension in found.studies[0].space.dimensions][:1]
    ('planned', ['lr'])
    >>> tiny = {"network": "conv2", "image_size": 8, "epochs": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = tune("dense", "emoji", trials=1, config=tiny, workers=1, final=False, results=folder)
    >>> done.status, len(done.trials), sorted(done.studies[0].best[0].values)
    ('complete', 1, ['top1'])

    Args:
        file_or_method: a tuning file, parsed or as a path (`.yaml`), or the name of a method.
        dataset: the data set, after a method.
        results: results folder [default: as in the file, else `results/NAME`].
        storage: a journal file or a `postgresql://` URL [default: `study.log` in the results].
        workers: trials at a time [default: as in the file, else as many as GPUs or cores allow; 8 on SLURM].
        runs_per_gpu: trials that share a GPU of this machine.
        data_root: folder of data sets.
        trackers: experiment trackers of each run.
        items: keep the outcome of every test item of the final runs, for intervals and tests over test items.
        final: whether the best configurations are retrained and scored on the test set.
        dry_run: only return what would be searched.
        on: `slurm` makes every trial a job.
        driver: on SLURM, whether the driver is a job too (the call returns at once) or stays in this process.
        cluster: site profile, by name or file [default: the profile `default`, if there is one].
        code_changes: whether runs may resume under other code than they were submitted with.
        progress: called with one line for a person after each event.
        **search: what is searched and for how much, see `SearchOptions`.

    Raises:
        UserError: a file, option or resource that cannot be used.
        AlreadyDriven: another process drives these studies.
        SubnetbenchError: the storage cannot be opened, or the scheduler refuses or does not answer.
    """
    check_choice("on", on, ("here", "slurm"))
    check_choice("driver", driver, ("slurm", "here"))
    check_choice("code_changes", code_changes, get_args(CodeChanges))
    check_at_least("workers", workers, 1)
    check_at_least("runs_per_gpu", runs_per_gpu, 1)
    content = describe_tuning(file_or_method, dataset, options=search)
    if dry_run:
        folder = Path(results or content.results or Path("results") / content.name)
        studies = tuple(StudyResult.planned(content, entry) for entry in content.entries())
        return TuneResult(content.name, folder, "planned", content.budget, studies)
    settings = TuningSettings(
        results=results,
        storage=storage,
        workers=workers,
        data_root=data_folder(data_root),
        trackers=check_trackers(trackers),
        items=items,
        final=final,
        code_changes=code_changes,
    )
    if on == "here":
        return TuneResult.of(content, run_studies(content, settings, runs_per_gpu=runs_per_gpu, progress=progress))
    site = cluster if isinstance(cluster, Cluster) else read_cluster(cluster)
    if driver == "slurm":
        return _on_slurm(content, site, settings, code_changes)
    settings = replace(settings, workers=slurm_workers(content, site, workers))
    launcher = slurm_launcher(content, site, code_changes, Hooks(progress=progress))
    return TuneResult.of(content, run_studies(content, settings, make_launcher=launcher, progress=progress))


def _on_slurm(content: TuningFile, cluster: Cluster, settings: TuningSettings, code_changes: CodeChanges) -> TuneResult:
    job = submit_driver(content, cluster, settings, code_changes=code_changes)
    if job.job:
        status: TuneStatus = "submitted" if job.new else "driving"
        return TuneResult(content.name, job.results, status, content.budget, driver_job=job.job, driver_state=job.state)
    # Nothing is left to do: what there is can be read.
    return TuneResult.of(content, read_studies(content, settings))
