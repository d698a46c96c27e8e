"""A study: what defines it, what it holds, what it has spent, and which of its trials are the best."""

import json
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.errors import UserError
from subnetbench.harness.registry import get_method
from subnetbench.harness.run_folder import RunFolder, read_json
from subnetbench.harness.specs import RunSpec, resolve
from subnetbench.harness.tuning.launching import DIED
from subnetbench.harness.tuning.samplers import make_pruner, make_sampler
from subnetbench.harness.tuning.space import Space, build_space
from subnetbench.harness.tuning.tuning_file import EPOCH_PRUNERS, StudyEntry, TuningFile
from subnetbench.harness.tuning.warm_start import WARM, add_earlier_trials, enqueue

# Attributes of a study and of its trials.
DEFINITION = "subnetbench"
INPUT_SECONDS = "input_seconds"
OUTCOME = "outcome"
REASON = "reason"
SAME_AS = "same_as"
RETRY_OF = "retry_of"


class Study:
    """The study of one entry of a tuning file. Its trials are runs below `trials_folder`."""

    def __init__(
        self, file: TuningFile, entry: StudyEntry, storage: BaseStorage, storage_place: str, trials_folder: Path
    ) -> None:
        self.file, self.entry = file, entry
        self.label = str(entry.label)
        self.name = f"{file.name}.{self.label}"
        self.trials_folder = trials_folder
        self.storage_place = storage_place
        assert entry.method is not None
        config_class = get_method(entry.method).Config
        self.space: Space = build_space(
            entry.method, config_class, entry.config, entry.space, operating_points=file.operating_points
        )
        self.default_spec = self.spec({}, file.seeds[0])
        self.objectives = [objective.resolved(self.default_spec.task) for objective in file.objectives]
        self.constraints = [constraint.checked() for constraint in file.constraints]
        self._check_pruner()
        make_sampler(file.sampler, self.space, file.seed, 0)
        pruner = make_pruner(file.pruner)
        self.study = self._open(storage, pruner)
        enqueue(self.study, self.space, entry.enqueue, self.label)
        for place in entry.warm_start:
            add_earlier_trials(self.study, self.space, place, self.objectives)

    def spec(self, config: dict[str, Any], seed: int) -> RunSpec:
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
            inputs=entry.inputs,
        )

    def _definition(self) -> dict[str, Any]:
        """What must stay the same when a study goes on; the budget and the number of workers may change."""
        file = self.file
        described = {
            "recipe": self.default_spec.config_hash,
            "space": self.space.describe(),
            "objectives": [objective.model_dump() for objective in self.objectives],
            "constraints": [constraint.model_dump() for constraint in self.constraints],
            "seeds": file.seeds,
            "seed": file.seed,
            "sampler": file.sampler,
            "pruner": file.pruner,
            # A server holds the studies of many folders; a journal lies beside its runs and moves with them.
            "results": str(self.trials_folder) if "://" in self.storage_place else "",
        }
        return json.loads(json.dumps(described))

    def _open(self, storage: BaseStorage, pruner: optuna.pruners.BasePruner) -> optuna.Study:
        study = optuna.create_study(
            study_name=self.name,
            storage=storage,
            directions=[str(objective.direction) for objective in self.objectives],  # type: ignore[misc]
            sampler=RandomSampler(),
            pruner=pruner,
            load_if_exists=True,
        )
        definition, found = self._definition(), study.user_attrs.get(DEFINITION)
        if found is None:
            study.set_metric_names([objective.metric for objective in self.objectives])
            study.set_user_attr(DEFINITION, definition)
        elif found != definition:
            changed = [name for name in definition if found.get(name) != definition[name]]
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
        return self.file.pruner["name"] in EPOCH_PRUNERS

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Its own trials, those of earlier studies left out."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if WARM not in trial.user_attrs]

    def completed(self) -> int:
        """Trials that count towards the target: completed and pruned ones."""
        return len(self.trials(TrialState.COMPLETE, TrialState.PRUNED))

    def device_hours(self) -> float:
        """Processes x hours of all runs of the study, inputs included; a run that several trials share counts once."""
        seconds: dict[str, float] = dict(self.study.user_attrs.get(INPUT_SECONDS, {}))
        for trial in self.trials():
            seconds.update(trial.user_attrs.get(OUTCOME, {}).get("device_seconds", {}))
        return sum(seconds.values()) / 3600

    def best(self) -> list[FrozenTrial]:
        """The best feasible trial, of equals the first; with several objectives the Pareto front. Maybe empty."""
        done = [t for t in self.trials(TrialState.COMPLETE) if feasible(t)]
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


def failed_by_its_config(trial: FrozenTrial) -> bool:
    """Whether a trial failed by what it was, not because its processes were killed."""
    told = trial.user_attrs.get(REASON, {}).get("kind")
    return trial.state == TrialState.FAIL and told not in (None, *DIED) and SAME_AS not in trial.user_attrs


def feasible(trial: FrozenTrial) -> bool:
    """Whether a completed trial keeps all constraints."""
    return all(beyond <= 0 for beyond in trial.user_attrs.get(OUTCOME, {}).get("excess", {}).values())


def device_seconds(results: Path, run_id: str) -> float:
    """Processes x seconds of a run over all its attempts, as its heartbeat says."""
    folder = RunFolder(results, run_id)
    spec = read_json(folder.spec_file) or {}
    processes = spec.get("compute", {}).get("processes", 1)
    return float(processes) * float((folder.progress() or {}).get("seconds", 0.0))


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
