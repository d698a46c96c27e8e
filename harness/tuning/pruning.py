"""The worker's side of pruning: rank 0 of a trial reports each validation to the study and learns whether to stop.

It talks to the study's storage, not to the driver: a trial reports also while its driver is down.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from subnetbench.harness.execution.settings import Callback
from subnetbench.harness.tuning.attributes import AXIS, is_comparable
from subnetbench.harness.tuning.optuna_adapter import PartOfStudy, open_trial, stored_trial
from subnetbench.harness.tuning.samplers import Algorithm, make_pruner
from subnetbench.harness.tuning.storage import open_storage

logger = logging.getLogger(__name__)


def reporting(storage: str, study: str, trial_id: int, pruner: Algorithm) -> Callback:
    """The callback of a trial's runs: `connect`, with where the study is kept."""
    options = {"storage": storage, "study": study, "trial_id": trial_id, "pruner": pruner.model_dump()}
    return Callback(f"{__name__}:{connect.__name__}", options)


class Reporter:
    """Decides on pruning after each validation.

    Like is compared with like: `axis` names the budget and the validation data. A trial whose axis is not that of
    the study's first trial neither reports nor is pruned. Trials that were taken from earlier studies, or have reported
    nothing, are not compared with, and do not count for the start-up phase of a pruner.
    """

    def __init__(self, study: optuna.Study, trial_id: int, axis: str) -> None:
        self._study = study
        self._trial = trial_id
        self._axis = axis

    def __call__(self, epochs_done: int, value: float) -> bool:
        try:
            return self._decide(epochs_done, value)
        except Exception as error:
            # A storage that cannot be reached costs a report, not the trial.
            logger.warning("the validation after %d epochs could not be reported: %s", epochs_done, error)
            return False

    def _decide(self, epochs_done: int, value: float) -> bool:
        trial = open_trial(PartOfStudy(self._study, is_comparable), self._trial)
        if trial.user_attrs.get(AXIS) is None:
            trial.set_user_attr(AXIS, self._axis)
        first = next(t for t in self._study.get_trials(deepcopy=False) if AXIS in t.user_attrs)
        if first.user_attrs[AXIS] != self._axis:
            return False
        # After a resumption an epoch may be reported again; the first report stays.
        if epochs_done not in stored_trial(self._study, self._trial).intermediate_values:
            trial.report(value, epochs_done)
        return bool(trial.should_prune())


def connect(options: Mapping[str, Any], axis: Sequence[str]) -> Reporter:
    """Open the study of a trial.

    Args:
        options: those of `reporting`.
        axis: what reports must have in common to be compared: budget, protocol and data digest.

    Raises:
        UserError: the storage or the pruner does not exist.
        SubnetbenchError: the storage cannot be opened.
    """
    study = optuna.load_study(
        study_name=options["study"],
        storage=open_storage(options["storage"]),
        # Nothing is sampled here, and the default sampler would be one more thing to be seeded.
        sampler=optuna.samplers.RandomSampler(),
        pruner=make_pruner(Algorithm.parse(options["pruner"], where="pruner")),
    )
    return Reporter(study, options["trial_id"], "\n".join(axis))
