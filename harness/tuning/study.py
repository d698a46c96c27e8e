"""A study: what defines it, what it holds, what it has spent, and which of its trials are the best."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import read_json
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import Heartbeat
from subnetbench.harness.tuning.attributes import (
    DEFINITION,
    INPUT_SECONDS,
    FailureReason,
    TrialOutcome,
    is_own,
    same_as,
)
from subnetbench.harness.tuning.build_space import build_space
from subnetbench.harness.tuning.cautions import cautions
from subnetbench.harness.tuning.optuna_adapter import name_metrics
from subnetbench.harness.tuning.samplers import make_pruner, make_sampler
from subnetbench.harness.tuning.shared_inputs import inputs_of, sharing
from subnetbench.harness.tuning.space import Space
from subnetbench.harness.tuning.trial_launchers import DIED
from subnetbench.harness.tuning.tuning_file import EPOCH_PRUNERS, StudyEntry, TuningFile
from subnetbench.harness.tuning.warm_start import add_earlier_trials, enqueue


@dataclass(frozen=True)
class StudyDefinition:
    """What must stay the same when a study is resumed; the budget and the number of workers may change.

    All fields are plain JSON. `results` is the trials' folder where a server holds the studies of many, else empty: a
    journal lies beside its runs and moves with them.
    """

    recipe: str
    space: Mapping[str, Any]
    objectives: list[Mapping[str, Any]]
    constraints: list[Mapping[str, Any]]
    seeds: list[int]
    seed: int
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    results: str

    def to_json(self) -> dict[str, Any]:  # open: plain JSON
        return dict(json.loads(json.dumps(asdict(self))))  # as a storage gives it back

    def differences(self, stored: Mapping[str, object]) -> list[str]:
        """The names of the fields in which a stored definition differs."""
        return [name for name, value in self.to_json().items() if stored.get(name) != value]


class Study:
    """The study of one entry of a tuning file. Its trials are runs below `trials_folder`.

    `notes` say what of an earlier study was left out, and where its sampler or pruner cannot do its work.
    """

    def __init__(
        self, file: TuningFile, entry: StudyEntry, storage: BaseStorage, storage_url: str, trials_folder: Path
    ) -> None:
        self.file, self.entry = file, entry
        self.label = str(entry.label)
        self.name = f"{file.name}.{self.label}"
        self.trials_folder = trials_folder
        self.storage_url = storage_url
        self.space = space_of(file, entry)
        self.default_spec = self.spec({}, file.seeds[0])
        self.objectives = [objective.resolved(self.default_spec.task) for objective in file.objectives]
        self.constraints = [constraint.checked() for constraint in file.constraints]
        self._check_pruner()
        make_sampler(file.sampler, self.space, file.seed, 0)
        self.study = self._open(storage, make_pruner(file.pruner))
        enqueue(self.study, self.space, entry.enqueue, self.label)
        earlier = [add_earlier_trials(self.study, self.space, url, self.objectives) for url in entry.warm_start]
        taken = sum(each.taken for each in earlier)
        self.notes = [*(note for each in earlier for note in each.notes()), *cautions(file, self.space, taken)]
        self.notes += sharing(entry, self.space.fixed)

    def spec(self, config: UserValues, seed: int) -> RunSpec:
        """The run of a configuration (searched fields only, or all) with a seed."""
        entry = self.entry
        return resolve(
            str(entry.method),
            str(entry.dataset),
            config={**self.space.fixed, **config},
            data=entry.data,
            task=entry.task,
            seed=seed,
            compute=entry.compute,
            inputs=inputs_of(entry, self.space.fixed, config),
        )

    def _definition(self) -> StudyDefinition:
        file = self.file
        return StudyDefinition(
            recipe=self.default_spec.config_hash,
            space=self.space.to_json(),
            objectives=[objective.model_dump() for objective in self.objectives],
            constraints=[constraint.model_dump() for constraint in self.constraints],
            seeds=file.seeds,
            seed=file.seed,
            sampler=file.sampler.model_dump(),
            pruner=file.pruner.model_dump(),
            results=str(self.trials_folder) if "://" in self.storage_url else "",
        )

    def _open(self, storage: BaseStorage, pruner: optuna.pruners.BasePruner) -> optuna.Study:
        study = optuna.create_study(
            study_name=self.name,
            storage=storage,
            directions=[objective.direction or "maximize" for objective in self.objectives],
            sampler=RandomSampler(),
            pruner=pruner,
            load_if_exists=True,
        )
        definition, stored = self._definition(), study.user_attrs.get(DEFINITION)
        if stored is None:
            name_metrics(study, [objective.metric for objective in self.objectives])
            study.set_user_attr(DEFINITION, definition.to_json())
        elif changed := definition.differences(stored):
            raise UserError(
                f"the study {self.name!r} exists with another {' and '.join(changed)}; give the tuning another name, "
                "or another folder or storage",
                field="methods",
            )
        return study

    def _check_pruner(self) -> None:
        if self.prunes_epochs:
            for dimension in self.space.dimensions:
                if self.space.config_class.marks(dimension.name)[1]:
                    raise UserError(
                        "moves along the cost axis, and pruning would compare trials of unequal budgets; "
                        "search it without a pruner",
                        field=f"space.{dimension.name}",
                    )

    @property
    def prunes_epochs(self) -> bool:
        return self.file.pruner.name in EPOCH_PRUNERS

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Its own trials, those of earlier studies left out."""
        return list(filter(is_own, self.study.get_trials(deepcopy=False, states=states or None)))

    def completed(self) -> int:
        """Trials that count towards the target: completed and pruned ones."""
        return len(self.trials(TrialState.COMPLETE, TrialState.PRUNED))

    def device_hours(self) -> float:
        """Processes x hours of all runs of the study, inputs included; a run that several trials share counts once."""
        seconds: dict[str, float] = dict(self.study.user_attrs.get(INPUT_SECONDS, {}))
        for trial in self.trials():
            seconds.update(TrialOutcome.of(trial).device_seconds)
        return sum(seconds.values()) / 3600

    def best(self) -> list[FrozenTrial]:
        """The best feasible trial, of equals the first; with several objectives the Pareto front. Maybe empty."""
        done = [t for t in self.trials(TrialState.COMPLETE) if TrialOutcome.of(t).feasible]
        signs = [1 if objective.direction == "maximize" else -1 for objective in self.objectives]
        scores = {t.number: tuple(s * v for s, v in zip(signs, t.values, strict=True)) for t in done}
        if len(signs) == 1:
            return sorted(done, key=lambda t: (-scores[t.number][0], t.number))[:1]
        front: dict[tuple[float, ...], FrozenTrial] = {}
        for trial in done:
            own = scores[trial.number]
            if not any(_dominates(other, own) for other in scores.values()):
                front.setdefault(own, trial)
        return [front[key] for key in sorted(front, reverse=True)]

    def add_input_cost(self, run_id: str) -> None:
        """Count an input (a teacher) that was trained for the study's trials."""
        known = self.study.user_attrs.get(INPUT_SECONDS, {})
        self.study.set_user_attr(INPUT_SECONDS, {**known, run_id: device_seconds(self.trials_folder, run_id)})


def space_of(file: TuningFile, entry: StudyEntry) -> Space:
    """The space of a study. Raises `UserError` for one that cannot be searched."""
    method = str(entry.method)
    return build_space(
        method, get_method(method).Config, entry.config, entry.space, operating_points=file.operating_points
    )


def failed_by_its_config(trial: FrozenTrial) -> bool:
    """Whether a trial failed by what it was, not because its processes were killed."""
    reason = FailureReason.of(trial)
    known = trial.state == TrialState.FAIL and reason is not None
    return known and reason is not None and reason.kind not in DIED and same_as(trial) is None


def device_seconds(results: Path, run_id: str) -> float:
    """Processes x seconds of a run over all its attempts, by its heartbeat."""
    folder = RunFolder(results, run_id)
    spec = read_json(folder.spec_file) or {}
    processes = spec.get("compute", {}).get("processes", 1)
    return float(processes) * (folder.heartbeat() or Heartbeat()).seconds


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
