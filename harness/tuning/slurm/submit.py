"""Tuning on a cluster: the launcher of its trials, and the driver as a job of its own.

The driver's job asks for one core. It continues for as long as the studies want trials, over any number of time limits
(see `job`), so nobody has to stay logged in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.registry import loaded_plugins
from subnetbench.harness.execution.plan import results_folder
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.arrays import JobArray
from subnetbench.harness.execution.slurm.job_plan import CodeChanges, JobPlan
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.execution.slurm.resources import Resources, SweepResources, merge, resources_for
from subnetbench.harness.execution.slurm.settle import settle
from subnetbench.harness.execution.slurm.submit import Outcome, Submitter
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.rows import DRIVER
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.tuning.slurm.plan import DriverPlan
from subnetbench.harness.tuning.slurm.trials import Hooks, SlurmTrials
from subnetbench.harness.tuning.storage import only_driver
from subnetbench.harness.tuning.studies import TuningSettings, is_done, open_searches
from subnetbench.harness.tuning.trial_launchers import LauncherFactory, TrialLauncher
from subnetbench.harness.tuning.tuning_file import TuningFile

DEFAULT_WORKERS = 8
DRIVER_MEMORY_GB = 4.0
_OF_THE_SITE = ("partition", "account", "qos", "minutes", "signal_seconds", "setup", "python", "sbatch")
"""Fields of a profile that hold for the driver's job too; what trials compute on does not."""


def trial_resources(content: TuningFile, cluster: Cluster) -> Callable[[RunSpec], Resources]:
    """What the job of a run asks for; raises `UserError` for resources that cannot be used."""
    section = SweepResources.parse(content.resources, where="resources")

    def resources_of(spec: RunSpec) -> Resources:
        # A trial that shared a job with another would wait for it.
        found = resources_for(spec, cluster, section).model_copy(update={"runs_per_job": 1})
        found.tasks_per_node(spec.compute.processes)
        return found

    return resources_of


def slurm_launcher(content: TuningFile, cluster: Cluster, code_changes: CodeChanges, hooks: Hooks) -> LauncherFactory:
    """Trials and final runs as jobs."""
    resources_of = trial_resources(content, cluster)
    # The number of workers bounds the number of jobs.
    site = cluster.model_copy(update={"max_jobs": None})

    def make(results: Path, settings: RunSettings) -> TrialLauncher:
        submitter = Submitter(results, content.name, settings, site, resources_of, code_changes=code_changes)
        return SlurmTrials(submitter, hooks)

    return make


def slurm_workers(content: TuningFile, cluster: Cluster, given: int | None) -> int:
    """Trials at a time: as given or as in the file, and no more jobs than the site allows beside the driver's."""
    wanted = given or content.workers or DEFAULT_WORKERS
    return wanted if cluster.max_jobs is None else max(min(wanted, cluster.max_jobs - 1), 1)


def driver_resources(content: TuningFile, cluster: Cluster) -> Resources:
    """What the driver's job asks for: what the site demands of every job, then the `driver` sections."""
    site = {name: getattr(cluster, name) for name in _OF_THE_SITE if name in cluster.model_fields_set}
    sections: list[tuple[str, Mapping[str, Any]]] = [("profile", {"memory_gb": DRIVER_MEMORY_GB, **site})]
    found = merge([*sections, ("profile.driver", cluster.driver), ("driver", content.driver)])
    # Signalled as soon as it began, it would make no progress.
    return found.model_copy(update={"signal_seconds": min(found.signal_seconds, 30 * found.minutes)})


@dataclass(frozen=True)
class DriverState:
    """The driver's job: `job` is its id, or empty when there is nothing left to do; `new` if it was submitted now."""

    results: Path
    job: str = ""
    state: str = ""
    new: bool = False


class _DriverSubmitter(Submitter):
    """Submits the job that drives a tuning."""

    program = "subnetbench.harness.tuning.slurm.start"

    def __init__(
        self,
        folder: Path,
        content: TuningFile,
        cluster: Cluster,
        resources_of: Callable[[RunSpec], Resources],
        settings: TuningSettings,
        code_changes: CodeChanges,
    ) -> None:
        plugins = tuple(loaded_plugins())
        of_runs = RunSettings(data_root=settings.data_root, trackers=settings.trackers, plugins=plugins)
        super().__init__(folder, content.name, of_runs, cluster, resources_of, code_changes=code_changes)
        self.content, self.tuning_settings = content, settings

    def live(self) -> DriverState | None:
        """The driver's job, if it is queued or running. Raises `SchedulerError` when that is unknown."""
        with self.ledger.lock():
            return self._live()

    def _live(self) -> DriverState | None:
        queue = settle(self.ledger)
        submission = self.ledger.latest().get(DRIVER)
        job = None if submission is None else queue.get(submission.job_of(DRIVER))
        return DriverState(self.results, job.job_id, job.state.lower()) if job is not None and job.live else None

    def write_plan(self, folder: Path, plan: JobPlan) -> None:
        DriverPlan(
            token=plan.token,
            content=self.content,
            cluster=self.cluster,
            settings=replace(self.tuning_settings, results=self.results),
            plugins=self.settings.plugins,
            code=plan.code,
            code_changes=plan.code_changes,
        ).write(folder)

    def submit_driver(self, resources: Resources) -> DriverState:
        """Submit it, unless somebody did meanwhile. Raises `SubnetbenchError` with the scheduler's reason."""
        with self.ledger.lock() as lock:
            live = self._live()
            if live is not None:
                return live
            folder = RunFolder(self.results, DRIVER)
            folder.path.mkdir(parents=True, exist_ok=True)
            for file in (folder.failure_file, folder.finished_file, folder.progress_file):
                file.unlink(missing_ok=True)
            array = JobArray(resources, processes=1, threads=1, after=(), jobs=((),))
            submission = self.ledger.new(f"{self.name[:33]}-driver", [[DRIVER]], code=self.code)
            outcome = Outcome()
            self._submit_one(submission, array, {}, lock, outcome)
        if outcome.faults:
            raise SubnetbenchError(f"the driver was not submitted: {outcome.faults[0]}")
        return DriverState(self.results, submission.job_of(DRIVER), "queued", new=True)


def submit_driver(
    content: TuningFile, cluster: Cluster, settings: TuningSettings, *, code_changes: CodeChanges = "refuse"
) -> DriverState:
    """Submit the job that drives a tuning, unless it is in the queue already or nothing is left to do.

    Raises:
        UserError: a file or resources that cannot be used.
        AlreadyDriven: a process elsewhere drives the studies.
        SubnetbenchError: the scheduler refuses or does not answer.
    """
    folder = results_folder(content.name, settings.results or content.results)
    resources_of, resources = trial_resources(content, cluster), driver_resources(content, cluster)
    submitter = _DriverSubmitter(folder, content, cluster, resources_of, settings, code_changes)
    live = submitter.live()
    if live is not None:
        return live
    with only_driver(folder):
        searches = open_searches(content, folder, settings.storage)
        for search in searches:
            resources_of(search.default_spec)
        if is_done(content, searches, folder, final=settings.final):
            return DriverState(folder)
    return submitter.submit_driver(resources)
