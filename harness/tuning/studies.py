"""The studies of a tuning file carried out by this process: search, selection, final runs, files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import TrialState

from subnetbench.harness.core.environment import usable_cpus
from subnetbench.harness.core.errors import ChangedError
from subnetbench.harness.core.paths import default_data_root
from subnetbench.harness.core.registry import loaded_plugins
from subnetbench.harness.execution import process
from subnetbench.harness.execution.devices import Devices, visible_gpus
from subnetbench.harness.execution.plan import results_folder
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.job_plan import CodeChanges
from subnetbench.harness.runs.folder import RunFolder, find_runs
from subnetbench.harness.runs.spec import RunSpec, spec_from_json
from subnetbench.harness.tuning.attributes import FailureReason, TrialOutcome
from subnetbench.harness.tuning.driver import Driver
from subnetbench.harness.tuning.final import carry_out, final_runs
from subnetbench.harness.tuning.gains import Gain, gains, write_gains
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.storage import only_driver, open_storage
from subnetbench.harness.tuning.tables import write_best_sweep, write_study_files
from subnetbench.harness.tuning.trial_launchers import LauncherFactory, LocalTrials, TrialLauncher
from subnetbench.harness.tuning.tuning_file import TuningFile

JOURNAL = "study.log"
_ELSEWHERE = "another name, or results folder, begins afresh"
TRIALS = "trials"

Lines = Callable[[str], None]
"""Called with one line for a person after each event."""


@dataclass(frozen=True)
class TuningSettings:
    """How a tuning is carried out, as far as its results do not depend on it.

    `results` and `workers` win over those of the file. `storage` is a journal file (default `study.log` in the
    results) or a `postgresql://` URL; without `final` the test set is left alone.
    """

    results: Path | str | None = None
    storage: str | None = None
    workers: int | None = None
    data_root: Path = field(default_factory=default_data_root)
    trackers: tuple[str, ...] = ("tensorboard",)
    items: bool = True
    final: bool = True
    code_changes: CodeChanges = "refuse"


@dataclass
class StudiesRun:
    """What driving the studies of a file came to. `interrupted`: the same call resumes them.

    `statuses` are those of the final runs, by run id.
    """

    results: Path
    searches: list[Search]
    interrupted: bool = False
    statuses: dict[str, str] = field(default_factory=dict)
    gains: list[Gain] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every study found something and every final run finished."""
        found = all(search.best() for search in self.searches)
        return found and not self.interrupted and all(status == "finished" for status in self.statuses.values())


def run_studies(
    content: TuningFile,
    settings: TuningSettings,
    *,
    runs_per_gpu: int = 1,
    make_launcher: LauncherFactory | None = None,
    progress: Lines = lambda line: None,
    watch: Callable[[list[Search]], None] = lambda searches: None,
) -> StudiesRun:
    """Carry out the studies of a tuning file, or resume them; then the final runs, if they are wanted.

    Trials lie below `trials/` in the results, final runs beside them, tables below `studies/`. `make_launcher`
    replaces the local launcher. `watch` is called with the searches at first and after each trial.

    Raises:
        UserError: the file cannot be used.
        AlreadyDriven: another process drives these studies.
        ChangedError: runs of these studies stand on other data or files than are here, or half-finished ones on other
            code.
    """
    folder = results_folder(content.name, settings.results or content.results)
    common = _common_settings(content, settings)
    with only_driver(folder):
        check_standing(folder, settings, progress)
        searches = open_searches(content, folder, settings.storage)
        specs = [search.default_spec for search in searches]
        count = settings.workers or content.workers or default_workers(specs, runs_per_gpu)
        make = make_launcher or local_launcher(specs, count, runs_per_gpu)
        if any(search.prunes_epochs for search in searches):
            process.preload("subnetbench.harness.tuning.pruning")
        done = StudiesRun(folder, searches)
        watch(searches)
        for search in searches:
            for note in search.notes:
                progress(f"{search.name}: {note}")

        def trial_ended(search: Search, number: int) -> None:
            progress(describe(search, number))
            watch(searches)

        done.interrupted = not Driver(searches, make(folder / TRIALS, common), count, trial_ended=trial_ended).run()
        _write_files(content, done, progress)
        if settings.final and content.final_seeds and not done.interrupted:
            _run_final(done, make(folder, common), progress)
    return done


def _common_settings(content: TuningFile, settings: TuningSettings) -> RunSettings:
    """What the settings of all runs of a tuning have in common."""
    return RunSettings(
        data_root=settings.data_root,
        trackers=settings.trackers,
        items=settings.items,
        sweep=content.name,
        plugins=tuple(loaded_plugins()),
        code_changes=settings.code_changes,
    )


def check_standing(folder: Path, settings: TuningSettings, progress: Lines) -> None:
    """Compare what the runs of a tuning stand on with what is here. Raises `ChangedError`, see `run_studies`."""
    from subnetbench.harness.execution.standing import examine  # late: studies are read without torch

    for results in (folder / TRIALS, folder):
        runs = [run for run in find_runs(results) if run.state() != "failed"]
        specs = [spec_from_json(run.spec_file.read_bytes()) for run in runs]
        standing = examine(specs, results, settings.data_root)
        for what, found in (("data", standing.data), ("files", standing.files)):
            if found:
                raise ChangedError(f"{what} of {len(found)} runs of this tuning changed: {_first(found)}; {_ELSEWHERE}")
        begun = {run.run_id for run in runs if not run.finished_file.exists()} & standing.code.keys()
        if begun and settings.code_changes == "refuse":
            raise ChangedError(
                f"{len(begun)} runs of this tuning would resume under other code, of {_first(standing.code)}; "
                f"{_ELSEWHERE}, or resume them with --code-changes allow"
            )
        if standing.code:
            progress(
                f"{len(standing.code)} runs in {results} are of other code, of {_first(standing.code)}; {_ELSEWHERE}"
            )
        if standing.unknown:
            progress(f"an earlier version made {len(standing.unknown)} runs: what they stand on is not known")


def _first(found: Mapping[str, str]) -> str:
    return next(iter(found.values()))


def _write_files(content: TuningFile, done: StudiesRun, progress: Lines) -> None:
    for search in done.searches:
        write_study_files(search, done.results / "studies" / search.label)
        if search.stopped and not done.interrupted:
            progress(f"{search.name}: stopped, {search.stopped}")
    write_best_sweep(content, done.searches, done.results / "best.yaml")


def open_searches(content: TuningFile, folder: Path, storage: str | None) -> list[Search]:
    """The studies of a tuning file, in its results folder and storage; raises what `run_studies` raises."""
    url = storage or str(folder / JOURNAL)
    if "://" not in url:
        url = str(Path(url).resolve())
    opened = open_storage(url)
    trials = results_folder(content.name, folder / TRIALS)
    return [Search(content, entry, opened, url, trials) for entry in content.entries()]


def is_done(content: TuningFile, searches: list[Search], folder: Path, *, final: bool = True) -> bool:
    """Whether `run_studies` would find nothing left to do."""
    if any(search.trials(TrialState.RUNNING) or search.wants_trial(0) for search in searches):
        return False
    runs = final_runs(searches) if final and content.final_seeds else []
    return all(RunFolder(folder, run.spec.run_id).finished_file.exists() for run in runs)


def read_studies(content: TuningFile, settings: TuningSettings) -> StudiesRun:
    """What the studies of a tuning file hold, without carrying out anything; raises what `run_studies` raises."""
    folder = results_folder(content.name, settings.results or content.results)
    done = StudiesRun(folder, open_searches(content, folder, settings.storage))
    if settings.final and content.final_seeds:
        runs = [RunFolder(folder, run.spec.run_id) for run in final_runs(done.searches)]
        done.statuses = {run.run_id: run.state() for run in runs}
        done.gains = gains(done.searches, folder)
    return done


def _run_final(done: StudiesRun, launcher: TrialLauncher, progress: Lines) -> None:
    runs = final_runs(done.searches)
    if not runs:
        return
    progress(f"{len(runs)} final runs on the test set")
    done.statuses = carry_out(runs, launcher, ended=lambda run_id, status: progress(f"{status}: {run_id}"))
    done.interrupted = "interrupted" in done.statuses.values()
    done.gains = gains(done.searches, done.results)
    write_gains(done.gains, done.results / "gains.csv")


def describe(search: Search, number: int) -> str:
    """One line on a trial that ended."""
    trial = search.study.get_trials(deepcopy=False)[number]
    values = ", ".join(f"{o.metric} {v:.6g}" for o, v in zip(search.objectives, trial.values or [], strict=False))
    if trial.state.name == "COMPLETE" and not TrialOutcome.of(trial).feasible:
        values += " (breaks a constraint)"
    reason = FailureReason.of(trial)
    detail = values or (reason.message if reason else "")
    best = [t.number for t in search.best()]
    standing = f"best: trial {best[0]}" if len(best) == 1 else f"front of {len(best)}"
    return (
        f"[{search.completed()} of {search.file.budget}] {search.label} trial {number} "
        f"{trial.state.name.lower()}{': ' if detail else ''}{detail} ({standing})"
    )


def default_workers(specs: list[RunSpec], runs_per_gpu: int) -> int:
    """As many trials at a time as there are GPUs, or CPU cores, for the widest of them."""
    gpus = visible_gpus(specs)
    if gpus:
        return max(len(gpus) * runs_per_gpu // max(spec.compute.processes for spec in specs), 1)
    return max(usable_cpus() // _slots(specs), 1)


def local_launcher(specs: list[RunSpec], workers: int, runs_per_gpu: int) -> LauncherFactory:
    """Trials as processes of this machine, with room for `workers` of them."""

    def make(results: Path, settings: RunSettings) -> TrialLauncher:
        devices = Devices(cpu_slots=workers * _slots(specs), gpus=visible_gpus(specs), runs_per_gpu=runs_per_gpu)
        return LocalTrials(results, settings, devices)

    return make


def _slots(specs: list[RunSpec]) -> int:
    return max(spec.compute.processes * spec.compute.threads for spec in specs)
