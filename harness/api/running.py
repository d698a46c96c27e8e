"""Carrying out runs: one, or all of a sweep file; here, each in processes of its own, or on SLURM."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import pandas as pd

from subnetbench.harness.api.runs import Run
from subnetbench.harness.api.submitting import SlurmOptions, Submission, submit_plan
from subnetbench.harness.core.errors import check_at_least, check_choice
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.execution.local import run_locally
from subnetbench.harness.execution.plan import Plan, begin_afresh, plan_runs, results_folder
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.job_plan import CodeChanges
from subnetbench.harness.execution.sweep_file import read_sweep
from subnetbench.harness.execution.trackers import check_trackers
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec

logger = logging.getLogger(__name__)

Where = Literal["here", "slurm"]


class Progress(Protocol):
    """Whoever wants to follow runs on this machine; the methods are called from the thread that started them."""

    def planned(self, plan: Plan, results: Path) -> None:
        """Called once, before the first run starts."""

    def event(self, run_id: str, event: str, detail: str) -> None:
        """A run `started`, is `stopping`, or ended with a status."""

    def tick(self) -> None:
        """Called about ten times a second."""


class LoggedProgress:
    """Progress as lines of this module's logger, at level INFO."""

    def planned(self, plan: Plan, results: Path) -> None:
        logger.info("%d of %d runs to do, results in %s", len(plan.todo), len(plan.specs), results)

    def event(self, run_id: str, event: str, detail: str) -> None:
        logger.info("%s: %s%s", event, run_id, f" ({detail.splitlines()[0]})" if detail else "")

    def tick(self) -> None:
        pass


@dataclass(frozen=True)
class Launch:
    """How runs are carried out, as far as no score depends on it.

    `where`: `here` is this machine; `slurm` submits jobs and returns. `slots`: CPU slots that runs share (None: the
    cores).
    """

    results: Path | str | None = None
    data_root: Path | str | None = None
    trackers: Sequence[str] | None = None
    items: bool = True
    retry_failed: bool = False
    rerun: bool = False
    dry_run: bool = False
    where: Where = "here"
    slots: int | None = None
    runs_per_gpu: int = 1
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_choice("on", self.where, get_args(Where))
        check_choice("code_changes", self.slurm.code_changes, get_args(CodeChanges))
        check_at_least("runs_per_gpu", self.runs_per_gpu, 1)


@dataclass(frozen=True)
class Sweep:
    """What became of the runs of a sweep (and of the runs that they start from), in order.

    `submission` says what was handed to SLURM; None where the runs were carried out here.
    """

    name: str
    results: Path
    runs: tuple[Run, ...]
    submission: Submission | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs of each status."""
        return dict(Counter(run.status for run in self.runs))

    @property
    def complete(self) -> bool:
        """Whether every run is finished."""
        return all(run.status == "finished" for run in self.runs)

    @property
    def frame(self) -> pd.DataFrame:
        """One line a run: run, method, dataset, seed, status, message."""
        rows = [(r.id, r.spec.method, r.spec.dataset, r.spec.seed, r.status, r.message) for r in self.runs]
        return pd.DataFrame(rows, columns=["run", "method", "dataset", "seed", "status", "message"])


def run(
    method: str,
    dataset: str,
    *,
    config: Mapping[str, Any] | None = None,  # open: fields of the method's config
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    task: str | None = None,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,  # open: see `resolve`
    compute: Mapping[str, Any] | None = None,  # open: fields of `Compute`
    results: Path | str = "results/runs",
    data_root: Path | str | None = None,
    trackers: Sequence[str] | None = None,
    items: bool = True,
    retry_failed: bool = False,
    rerun: bool = False,
    dry_run: bool = False,
    on: Where = "here",
    cluster: str | None = None,
    code_changes: Literal["refuse", "allow"] = "refuse",
    progress: Progress | None = None,
) -> Run:
    """Train, evaluate and record one run; again, it resumes, or returns the finished one.

    Args:
        method: Name of a method.
        dataset: Name of a data set.
        config: Fields of the method's config, e.g. `{"sparsity": 0.7}`.
        data: Fields of the data set's config.
        task: Task, where a data set has several.
        seed: Seed of all random streams of the run, at least 0.
        inputs: Runs or weights that the run starts from, by role, e.g. `{"teacher": {"run": "ID"}}`.
        compute: `processes`, `threads`, `device` (`auto`, `cpu`, `cuda`), `precision` (`fp32`,
            `tf32`, `bf16`).
        results: Results folder.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        trackers: Trackers by their Accelerate names; None: TensorBoard; `["none"]`: none.
        items: Keep the outcome of every test item, for intervals and tests over test items.
        retry_failed: Run it again if it failed before.
        rerun: Train it afresh if its data, files or code are others than those that it began on; what it has is given
            up, but for its log and records.
        dry_run: Start nothing; the status says whether it is `to do`.
        on: `here`: this machine; `slurm`: submit a job and return.
        cluster: With `slurm`: site profile by name, or a YAML file.
        code_changes: Whether a half-finished run may resume under other code than it began with (`allow`); its record
            then names both.
        progress: Follows the run; None: events are logged.

    Returns:
        The run. A run that failed is returned too: see `status` and `message`.

    Raises:
        UserError: A name, field or option cannot be used.
        ChangedError: Without `rerun`: the data or files of the run are not what they were; the message says which.

    Example:
        >>> from subnetbench import run
        >>> tiny = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2}
        >>> done = run("edge_popup", "emoji", config=tiny, compute={"device": "cpu"}, results="results/quickstart")
        >>> done.id[:20], done.status
        ('edge_popup-emoji-s0-', 'finished')
        >>> sorted(done.scores.columns)
        ['gallery_variant', 'metric', 'split', 'value', 'variant']
        >>> [name for name, _ in done.load().modules.named_children()]
        ['network']
    """
    check_at_least("seed", seed, 0)
    spec = resolve(
        method,
        dataset,
        config=dict(config or {}),
        data=dict(data or {}),
        task=task,
        seed=seed,
        inputs=dict(inputs or {}),
        compute=dict(compute or {}),
    )
    slots = spec.compute.processes * spec.compute.threads
    slurm = SlurmOptions(cluster, code_changes)
    launch = Launch(results, data_root, trackers, items, retry_failed, rerun, dry_run, on, slots, 1, slurm, progress)
    launched = _carry_out([spec], "runs", launch, RunSettings(sweep="runs"))
    *before, last = launched.runs
    return Run(last.spec, last.results, last.status, last.message, tuple(before), launched.submission)


def sweep(
    file: Path | str,
    *,
    results: Path | str | None = None,
    data_root: Path | str | None = None,
    slots: int | None = None,
    runs_per_gpu: int = 1,
    trackers: Sequence[str] | None = None,
    items: bool = True,
    retry_failed: bool = False,
    rerun: bool = False,
    dry_run: bool = False,
    on: Where = "here",
    cluster: str | None = None,
    code_changes: Literal["refuse", "allow"] = "refuse",
    progress: Progress | None = None,
) -> Sweep:
    """Carry out all runs of a sweep file; again, it skips finished runs and resumes half-finished ones.

    Args:
        file: Sweep file (YAML).
        results: Results folder; None: the file's, else `results/NAME`.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        slots: CPU slots for runs; None: the file's, else the cores.
        runs_per_gpu: Runs that may share a GPU.
        trackers: Trackers by their Accelerate names; None: TensorBoard; `["none"]`: none.
        items: Keep the outcome of every test item, for intervals and tests over test items.
        retry_failed: Run failed runs again.
        rerun: Train runs afresh whose data, files or code are others than those that they began on, and what starts
            from them; what they have is given up, but for logs and records.
        dry_run: Start and submit nothing; say what is to do, and with `slurm` as which jobs.
        on: `here`: this machine; `slurm`: submit jobs and return; `status` follows them.
        cluster: With `slurm`: site profile by name, or a YAML file.
        code_changes: Whether half-finished runs may resume under other code than they began with (`allow`); their
            records then name both.
        progress: Follows the runs; None: events are logged.

    Returns:
        All runs with their statuses; failed ones among them.

    Raises:
        UserError: The file, or an option, cannot be used.
        ChangedError: Without `rerun`: data or files of a run are not what they were; the message says which.

    Example:
        >>> from subnetbench import sweep
        >>> sweep("small.yaml", results="results/new", dry_run=True).counts
        {'to do': 2}
        >>> done = sweep("small.yaml")
        >>> done.counts, [run.spec.config["sparsity"] for run in done.runs]
        ({'finished': 2}, [0.5, 0.8])
    """
    check_at_least("slots", slots, 1)
    content = read_sweep(Path(file))
    entries = content.expand_with_resources()
    own = {spec.run_id: resources for spec, resources in entries}
    slurm = SlurmOptions(cluster, code_changes, content.resources, own)
    launch = Launch(
        results or content.results,
        data_root,
        trackers,
        items,
        retry_failed,
        rerun,
        dry_run,
        on,
        slots or content.slots,
        runs_per_gpu,
        slurm,
        progress,
    )
    return _carry_out([spec for spec, _ in entries], content.name, launch, content.settings(RunSettings()))


def _carry_out(specs: Sequence[RunSpec], name: str, launch: Launch, settings: RunSettings) -> Sweep:
    """Plan specs and run, submit or list what is left of them."""
    results = Path(launch.results or Path("results") / name)
    results = results.resolve() if launch.dry_run else results_folder(name, results)
    trackers = check_trackers(launch.trackers)
    settings = replace(
        settings,
        data_root=data_folder(launch.data_root),
        trackers=trackers,
        items=launch.items,
        code_changes=launch.slurm.code_changes,
    )
    plan = plan_runs(
        specs,
        results,
        retry_failed=launch.retry_failed,
        rerun=launch.rerun,
        data_root=settings.data_root,
        code_changes=launch.slurm.code_changes,
    )
    for text in plan.notes:
        logger.warning("%s", text)
    if not launch.dry_run:
        begin_afresh(plan, results)
    if launch.where == "slurm":
        submission = submit_plan(plan, results, name, settings, launch.slurm, dry_run=launch.dry_run)
        return Sweep(name, results, _runs(plan, results, submission.statuses), submission)
    if launch.dry_run:
        return Sweep(name, results, _runs(plan, results, dict.fromkeys((s.run_id for s in plan.todo), "to do")))
    progress = launch.progress or LoggedProgress()
    progress.planned(plan, results)
    statuses = run_locally(
        plan,
        results,
        settings,
        slots=launch.slots,
        runs_per_gpu=launch.runs_per_gpu,
        on_event=progress.event,
        tick=progress.tick,
    )
    return Sweep(name, results, _runs(plan, results, statuses))


def _runs(plan: Plan, results: Path, statuses: Mapping[str, str]) -> tuple[Run, ...]:
    known = {**dict.fromkeys(plan.finished, "finished"), **dict.fromkeys(plan.failed, "failed"), **statuses}
    return tuple(_run(spec, results, known[spec.run_id]) for spec in plan.specs)


def _run(spec: RunSpec, results: Path, status: str) -> Run:
    failure = None if status == "finished" else RunFolder(results, spec.run_id).failure()
    return Run(spec, results, status, failure.message if failure else "")
