"""Tuning from a file to leaderboard rows: search, selection, final runs, files."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from subnetbench.harness.errors import UserError
from subnetbench.harness.launchers import process
from subnetbench.harness.launchers.local import Devices
from subnetbench.harness.paths import default_data_root
from subnetbench.harness.planning import results_folder, visible_gpus
from subnetbench.harness.registry import loaded_plugins
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.trackers import check_trackers
from subnetbench.harness.tuning.driver import Driver
from subnetbench.harness.tuning.final import FinalRun, carry_out, final_runs
from subnetbench.harness.tuning.gains import Gain, gains, write_gains
from subnetbench.harness.tuning.launching import LauncherFactory, LocalTrials, TrialLauncher
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.storage import only_driver, open_storage
from subnetbench.harness.tuning.study import REASON, feasible
from subnetbench.harness.tuning.study_files import write_best_sweep, write_study_files
from subnetbench.harness.tuning.tuning_file import TuningFile, read_tuning_file

JOURNAL = "study.log"
TRIALS = "trials"

Say = Callable[[str], None]


@dataclass
class Tuned:
    """What a tuning came to. `interrupted`: the same call goes on. `endings` are those of the final runs."""

    results: Path
    searches: list[Search]
    interrupted: bool = False
    endings: dict[str, str] = field(default_factory=dict)
    gains: list[Gain] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every study found something and every final run finished."""
        found = all(search.best() for search in self.searches)
        return found and not self.interrupted and all(ending == "finished" for ending in self.endings.values())


def tune(
    file: TuningFile | Path | str,
    *,
    results: Path | str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    runs_per_gpu: int = 1,
    data_root: Path | None = None,
    trackers: list[str] | None = None,
    final: bool = True,
    make_launcher: LauncherFactory | None = None,
    say: Say = lambda line: None,
    watch: Callable[[list[Search]], None] = lambda searches: None,
) -> Tuned:
    """Carry out the studies of a tuning file, or go on with them; then the final runs, unless `final` is False.

    Results go to `results`: trials below `trials/`, final runs beside them, tables below `studies/`. `storage` is a
    journal file (default `study.log` there) or a `postgresql://` URL. `make_launcher` replaces the local launcher.
    `watch` is called with the searches at first and after each trial. Raises `UserError` for a file that cannot be
    used, `AlreadyDriven` when another process drives these studies.
    """
    content = file if isinstance(file, TuningFile) else read_tuning_file(Path(file))
    folder = results_folder(content.name, results or content.results)
    shared = {
        "data_root": data_root or default_data_root(),
        "trackers": check_trackers(trackers),
        "sweep": content.name,
        "plugins": tuple(loaded_plugins()),
    }
    with only_driver(folder):
        searches = open_searches(content, folder, storage)
        specs = [search.default_spec for search in searches]
        count = workers or content.workers or default_workers(specs, runs_per_gpu)
        make = make_launcher or local_launcher(specs, count, runs_per_gpu)
        if any(search.prunes_epochs for search in searches):
            process.preload("subnetbench.harness.tuning.reporting")
        tuned = Tuned(folder, searches)
        watch(searches)

        def told(search: Search, number: int) -> None:
            say(describe(search, number))
            watch(searches)

        driver = Driver(searches, make(folder / TRIALS, shared), count, told=told)
        tuned.interrupted = not driver.run()
        for search in searches:
            write_study_files(search, folder / "studies" / search.label)
            if search.stopped and not tuned.interrupted:
                say(f"{search.name}: stopped, {search.stopped}")
        write_best_sweep(content, searches, folder / "best.yaml")
        if final and content.final_seeds and not tuned.interrupted:
            _final(tuned, final_runs(searches), make(folder, shared), say)
    return tuned


def open_searches(content: TuningFile, folder: Path, storage: str | None) -> list[Search]:
    """The studies of a tuning file, in its results folder and storage; raises what `tune` raises."""
    place = storage or str(folder / JOURNAL)
    if "://" not in place:
        place = str(Path(place).resolve())
    opened = open_storage(place)
    trials = results_folder(content.name, folder / TRIALS)
    return [Search(content, entry, opened, place, trials) for entry in content.entries()]


def is_done(content: TuningFile, searches: list[Search], folder: Path, *, final: bool = True) -> bool:
    """Whether `tune` would find nothing left to do."""
    if any(search.trials(TrialState.RUNNING) or search.wants_trial(0) for search in searches):
        return False
    runs = final_runs(searches) if final and content.final_seeds else []
    return all(RunFolder(folder, run.spec.run_id).finished_file.exists() for run in runs)


def _final(tuned: Tuned, runs: list[FinalRun], launcher: TrialLauncher, say: Say) -> None:
    if not runs:
        return
    say(f"{len(runs)} final runs on the test set")
    tuned.endings = carry_out(
        runs, launcher, ended=lambda run_id, ending: say(f"{time.strftime('%H:%M:%S')} {ending}: {run_id}")
    )
    tuned.interrupted = "interrupted" in tuned.endings.values()
    tuned.gains = gains(tuned.searches, tuned.results)
    write_gains(tuned.gains, tuned.results / "gains.csv")


def describe(search: Search, number: int) -> str:
    """One line on a trial that was told."""
    trial = search.study.get_trials(deepcopy=False)[number]
    figures = ", ".join(f"{o.metric} {v:.6g}" for o, v in zip(search.objectives, trial.values or [], strict=False))
    if trial.state.name == "COMPLETE" and not feasible(trial):
        figures += " (breaks a constraint)"
    reason = trial.user_attrs.get(REASON, {}).get("message", "")
    best = [t.number for t in search.best()]
    place = f"best: trial {best[0]}" if len(best) == 1 else f"front of {len(best)}"
    state = trial.state.name.lower()
    return (
        f"{time.strftime('%H:%M:%S')} [{search.completed()} of {search.file.budget}] {search.label} trial {number} "
        f"{state}{': ' if figures or reason else ''}{figures or reason} ({place})"
    )


def default_workers(specs: list[RunSpec], runs_per_gpu: int) -> int:
    """As many trials at a time as there are GPUs, or CPU cores, for the widest of them."""
    gpus = visible_gpus(specs)
    if gpus:
        return max(len(gpus) * runs_per_gpu // max(spec.compute.processes for spec in specs), 1)
    return max((os.cpu_count() or 1) // _slots(specs), 1)


def local_launcher(specs: list[RunSpec], workers: int, runs_per_gpu: int) -> LauncherFactory:
    """Trials as processes of this machine, with room for `workers` of them."""

    def make(results: Path, settings: dict[str, Any]) -> TrialLauncher:
        devices = Devices(cpu_slots=workers * _slots(specs), gpus=visible_gpus(specs), runs_per_gpu=runs_per_gpu)
        return LocalTrials(results, settings, devices)

    return make


def _slots(specs: list[RunSpec]) -> int:
    return max(spec.compute.processes * spec.compute.threads for spec in specs)


def quick_file(method: str, dataset: str, **fields: Any) -> TuningFile:
    """The tuning file of one method on one data set, as the command line describes it."""
    entry_fields = ("task", "config", "data", "compute", "inputs", "space", "enqueue", "warm_start")
    entry = {name: value for name in entry_fields if (value := fields.pop(name, None))}
    given = {name: value for name, value in fields.items() if value is not None}
    if "budget" not in given:
        raise UserError("say how much: --trials or --device-hours", field="--trials")
    return TuningFile.parse(
        {"name": f"tune-{method}-{dataset}", "methods": [{"method": method, "dataset": dataset, **entry}], **given},
        where="tuning",
    )
