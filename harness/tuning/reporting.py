"""The worker's side of pruning: rank 0 of a trial reports each validation to the study and learns whether to stop.

It talks to the study's storage, not to the driver: a trial reports also while its driver is down.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from subnetbench.harness.tuning.samplers import make_pruner
from subnetbench.harness.tuning.storage import open_storage

AXIS = "axis"
"""Attribute of a trial: what its reports may be compared with."""


def reporting(storage: str, study: str, trial_id: int, pruner: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is told, as plain JSON, so that `connect` can be called in its process."""
    return {"storage": storage, "study": study, "trial_id": trial_id, "pruner": dict(pruner)}


class Reporter:
    """Decides on pruning after each validation.

    Like is compared with like: `axis` names the budget and the validation data. A trial whose axis is not that of
    the study's first trial neither reports nor is pruned.
    """

    def __init__(self, study: optuna.Study, trial_id: int, axis: str) -> None:
        self._study = study
        self._trial_id = trial_id
        self._axis = axis

    def __call__(self, epochs_done: int, value: float) -> bool:
        try:
            return self._decide(epochs_done, value)
        except Exception as error:
            # A storage that cannot be reached costs a report, not the trial.
            print(f"the validation after {epochs_done} epochs could not be reported: {error}", flush=True)
            return False

    def _decide(self, epochs_done: int, value: float) -> bool:
        trial = optuna.Trial(self._study, self._trial_id)
        if trial.user_attrs.get(AXIS) is None:
            trial.set_user_attr(AXIS, self._axis)
        first = next(t for t in self._study.get_trials(deepcopy=False) if AXIS in t.user_attrs)
        if first.user_attrs[AXIS] != self._axis:
            return False
        # After a resumption an epoch may be reported again; the first report stays.
        if epochs_done not in self._study._storage.get_trial(self._trial_id).intermediate_values:
            trial.report(value, epochs_done)
        return bool(trial.should_prune())


def connect(told: Mapping[str, Any], axis: Sequence[str]) -> Reporter:
    """Open the study of a trial; raises what `open_storage` raises."""
    study = optuna.load_study(
        study_name=told["study"],
        storage=open_storage(told["storage"]),
        # Nothing is sampled here, and the default sampler would be one more thing to be seeded.
        sampler=optuna.samplers.RandomSampler(),
        pruner=make_pruner(told["pruner"]),
    )
    return Reporter(study, told["trial_id"], "\n".join(axis))
