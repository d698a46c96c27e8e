"""Everything that this package uses of Optuna's private and experimental API; the other modules keep to its public one.

A study is a public object here and a FrozenTrial too; what has no public way is to reopen a stored trial by its id, to
write attributes of a trial that was not asked for in this process, and to change what a sampler sees of a study.
"""

import copy
import fcntl
import json
import logging
import os
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

try:
    from optuna.storages.journal._storage import JournalOperation
except ImportError as error:
    raise ImportError(f"Optuna {optuna.__version__} lacks private API that {__name__} uses: {error}") from error

optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.logging.disable_default_handler()
logging.getLogger("optuna").addHandler(logging.NullHandler())


@contextmanager
def experimental() -> Iterator[None]:
    """Without warnings that something is experimental; that it still works is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """The id of a trial in its storage, by which other processes find it."""
    return trial._trial_id


def open_trial(study: optuna.Study, trial_id: int) -> optuna.Trial:
    """A running trial of a study, to ask for its remaining parameters or to report to it."""
    return optuna.Trial(study, trial_id)


def stored_trial(study: optuna.Study, trial_id: int) -> FrozenTrial:
    """A trial as its storage holds it now."""
    return study._storage.get_trial(trial_id)


def set_attribute(study: optuna.Study, trial: FrozenTrial, name: str, value: object) -> None:
    """Set a user attribute of an unfinished trial; `value` is plain JSON."""
    study._storage.set_trial_user_attr(trial._trial_id, name, value)


def set_reports(study: optuna.Study, trial: FrozenTrial, reports: Mapping[int, float]) -> None:
    """Store validations by step, as if the trial had reported them."""
    for step, value in reports.items():
        study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def set_constraints(study: optuna.Study, trial: FrozenTrial, excess: Mapping[str, float]) -> None:
    """Store how far a trial is beyond each constraint, so that samplers learn from it."""
    with experimental():
        opened = open_trial(study, trial._trial_id)
        for name, beyond in excess.items():
            opened.set_constraint(name, beyond)


def name_metrics(study: optuna.Study, names: list[str]) -> None:
    """Name the objectives, for people who look at the study with Optuna's tools."""
    with experimental():
        study.set_metric_names(names)


def contains(distribution: BaseDistribution, value: object) -> bool:
    """Whether a distribution can give a value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False


class ProposingStudy(optuna.Study):
    """A study as samplers see it: a configuration that failed is as bad as the worst that did not.

    Optuna's samplers pass over failed trials, so a region in which everything fails would stay unexplored to them,
    and attract ever more trials. `failed` says which trials failed by their configuration's fault.
    """

    def __init__(self, study: optuna.Study, sampler: BaseSampler, failed: Callable[[FrozenTrial], bool]) -> None:
        super().__init__(study.study_name, study._storage, sampler, study.pruner)
        self._failed = failed

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, None, use_cache)
        finished = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
        if finished:
            ways = [min if direction.name == "MAXIMIZE" else max for direction in self.directions]
            worst = [way(values) for way, values in zip(ways, zip(*finished, strict=True), strict=True)]
            trials = [_as_bad_as(trial, worst) if self._failed(trial) else trial for trial in trials]
        return [trial for trial in trials if states is None or trial.state in states]


class PartOfStudy(optuna.Study):
    """A study of which only some trials are seen, as pruners and importances need it. `kept` says which.

    Optuna's pruners compare a trial with all completed ones, those that were added from elsewhere included. These have
    reported nothing: they end the start-up phase of a pruner, or are the best trial to which nothing can be compared.
    """

    def __init__(self, study: optuna.Study, kept: Callable[[FrozenTrial], bool]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._kept = kept

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in super()._get_trials(deepcopy, states, use_cache) if self._kept(trial)]

    def _get_best_trial(self, deepcopy: bool) -> FrozenTrial:
        done = self._get_trials(deepcopy, (TrialState.COMPLETE,))
        feasible = [trial for trial in done if all(excess <= 0 for excess in trial.constraints.values())]
        if not feasible:
            raise ValueError("no trial is completed yet")  # what Optuna's pruners expect
        way = max if self.direction == optuna.study.StudyDirection.MAXIMIZE else min
        return way(feasible, key=lambda trial: trial.values[0])


def _as_bad_as(trial: FrozenTrial, worst: Sequence[float]) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.state, seen.values = TrialState.COMPLETE, list(worst)
    return seen


def journal_storage(path: Path) -> JournalStorage:
    """The studies of a journal file. Raises `OSError`, and `ValueError`, `KeyError` or `TypeError` for other files."""
    return JournalStorage(_Journal(path))


class _Journal(JournalFileBackend):
    """A journal that outlives writers killed in the middle of a line.

    Optuna's own appends the next entry to such a torn line, and can never read the file again. Readers have not
    taken the torn line into account, so it is cut off before the next entry is written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:  # open: Optuna's entries
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._locked(), open(self._path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
            file.write(lines.encode())
            file.flush()
            # To outlive a process, an entry has only to be written; for a power cut, what ends a trial is flushed,
            # with all that was written before it.
            if any(log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES for log in logs):
                os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Held through the kernel: freed at once when its holder dies, where Optuna's lock file would stay behind."""
        descriptor = os.open(self._path.with_name(f"{self._path.name}.flock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
