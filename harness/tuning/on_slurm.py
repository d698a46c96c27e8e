"""Tuning on a cluster: the launcher of its trials, and the driver as a job of its own.

The driver's job asks for one core. It goes on for as long as the studies want trials, over any number of time limits
(see `driver_job`), so nobody has to stay logged in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subnetbench.harness.clusters import Cluster
from subnetbench.harness.errors import SubnetbenchError
from subnetbench.harness.launchers.slurm.grouping import JobArray
from subnetbench.harness.launchers.slurm.ledger import DRIVER
from subnetbench.harness.launchers.slurm.resources import Resources, SweepResources, merge, resources_for
from subnetbench.harness.launchers.slurm.submitting import CodeChanges, Outcome, Submitter, settle
from subnetbench.harness.planning import results_folder
from subnetbench.harness.registry import loaded_plugins
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.trackers import check_trackers
from subnetbench.harness.tuning.launching import LauncherFactory, TrialLauncher
from subnetbench.harness.tuning.slurm_trials import SlurmTrials
from subnetbench.harness.tuning.storage import only_driver
from subnetbench.harness.tuning.tune import is_done, open_searches
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


def slurm_launcher(content: TuningFile, cluster: Cluster, code_changes: CodeChanges, **hooks: Any) -> LauncherFactory:
    """Trials and final runs as jobs; `hooks` are keywords of `SlurmTrials`."""
    resources_of = trial_resources(content, cluster)
    # The number of workers bounds the number of jobs.
    site = cluster.model_copy(update={"max_jobs": None})

    def make(results: Path, settings: dict[str, Any]) -> TrialLauncher:
        submitter = Submitter(results, content.name, settings, site, resources_of, code_changes=code_changes)
        return SlurmTrials(submitter, **hooks)

    return make


def slurm_workers(content: TuningFile, cluster: Cluster, given: int | None) -> int:
    """Trials at a time: as given or as the file says, and no more jobs than the site allows beside the driver's."""
    wanted = given or content.workers or DEFAULT_WORKERS
    return wanted if cluster.max_jobs is None else max(min(wanted, cluster.max_jobs - 1), 1)


def driver_resources(content: TuningFile, cluster: Cluster) -> Resources:
    """What the driver's job asks for: what the site demands of every job, then the `driver` sections."""
    site = {name: getattr(cluster, name) for name in _OF_THE_SITE if name in cluster.model_fields_set}
    sections: list[tuple[str, Mapping[str, Any]]] = [("profile", {"memory_gb": DRIVER_MEMORY_GB, **site})]
    found = merge([*sections, ("profile.driver", cluster.driver), ("driver", content.driver)])
    # Told to end as soon as it began, it would get nowhere.
    return found.model_copy(update={"signal_seconds": min(found.signal_seconds, 30 * found.minutes)})


@dataclass(frozen=True)
class DriverPlace:
    """The driver's job: `job` is its id, or empty when there is nothing left to do; `new` if it was submitted now."""

    results: Path
    job: str = ""
    state: str = ""
    new: bool = False


class _DriverSubmitter(Submitter):
    """Submits the job that drives a tuning."""

    program = "subnetbench.harness.tuning.driver_job"

    def live(self) -> DriverPlace | None:
        """The driver's job, if it is queued or running. Raises `SchedulerError` when that cannot be said."""
        with self.ledger.lock():
            return self._live()

    def _live(self) -> DriverPlace | None:
        queue = settle(self.ledger)
        submission = self.ledger.latest().get(DRIVER)
        job = None if submission is None else queue.get(dict(submission.places())[DRIVER])
        return DriverPlace(self.results, job.job_id, job.state.lower()) if job is not None and job.live else None

    def submit_driver(self, resources: Resources) -> DriverPlace:
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
        return DriverPlace(self.results, dict(submission.places())[DRIVER], "queued", new=True)


def submit_driver(
    content: TuningFile,
    cluster: Cluster,
    *,
    results: Path | str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    data_root: Path,
    trackers: list[str] | None = None,
    final: bool = True,
    code_changes: CodeChanges = "refuse",
) -> DriverPlace:
    """Submit the job that drives a tuning, unless it is in the queue already or nothing is left to do.

    Raises `UserError` for a file or resources that cannot be used, `AlreadyDriven` when a process elsewhere drives
    the studies, and `SubnetbenchError` when the scheduler refuses or does not answer.
    """
    folder = results_folder(content.name, results or content.results)
    resources_of, resources = trial_resources(content, cluster), driver_resources(content, cluster)
    settings = {
        "data_root": data_root,
        "trackers": check_trackers(trackers),
        "plugins": tuple(loaded_plugins()),
        "file": content.model_dump(mode="json", exclude_unset=True),
        "cluster": cluster.model_dump(mode="json", exclude_unset=True),
        "storage": storage,
        "workers": workers,
        "final": final,
    }
    submitter = _DriverSubmitter(folder, content.name, settings, cluster, resources_of, code_changes=code_changes)
    live = submitter.live()
    if live is not None:
        return live
    with only_driver(folder):
        searches = open_searches(content, folder, storage)
        for search in searches:
            resources_of(search.default_spec)
        if is_done(content, searches, folder, final=final):
            return DriverPlace(folder)
    return submitter.submit_driver(resources)
