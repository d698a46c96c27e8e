"""What a study starts with: configurations that are tried first, and the trials of earlier studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from subnetbench.harness.errors import UserError
from subnetbench.harness.tuning.objectives import Objective
from subnetbench.harness.tuning.space import Space
from subnetbench.harness.tuning.storage import open_storage

ENQUEUED = "enqueued"
WARM = "warm_start"


def enqueue(study: optuna.Study, space: Space, configs: Sequence[dict[str, Any]], label: str) -> None:
    """Queue given configurations, each once, however often a driver starts."""
    for number, config in enumerate(configs):
        labels = space.labels_of(config, f"{label}.enqueue[{number}]")
        if not any(trial.user_attrs.get(ENQUEUED) == number for trial in study.get_trials(deepcopy=False)):
            study.enqueue_trial(labels, user_attrs={ENQUEUED: number})


def add_earlier_trials(study: optuna.Study, space: Space, place: str, objectives: Sequence[Objective]) -> None:
    """Let the sampler learn from an earlier study, and try its best configuration first.

    Trials inside the present space are added. They count for no budget and are never selected: they may come from
    other data or another budget. Raises `UserError` for a study that is not there or has other objectives.
    """
    earlier = _load(place)
    directions = [direction.name.lower() for direction in earlier.directions]
    if directions != [objective.direction for objective in objectives]:
        raise UserError("the earlier study has other objectives", field="warm_start", value=place, allowed=directions)
    known = {trial.user_attrs.get(WARM) for trial in study.get_trials(deepcopy=False)}
    usable = [t for t in earlier.get_trials(states=(TrialState.COMPLETE,)) if WARM not in t.user_attrs]
    usable = [t for t in usable if _fits(t, space)]
    for trial in usable:
        origin = f"{earlier.study_name}#{trial.number}"
        if origin not in known:
            study.add_trial(
                create_trial(
                    params=trial.params,
                    distributions={d.name: d.distribution for d in space.dimensions if d.name in trial.params},
                    values=trial.values,
                    user_attrs={WARM: origin},
                )
            )
    best = [t for t in earlier.best_trials if any(t.number == other.number for other in usable)]
    for trial in best[:1]:
        origin = f"{earlier.study_name}#{trial.number}"
        if not any(t.user_attrs.get(ENQUEUED) == origin for t in study.get_trials(deepcopy=False)):
            study.enqueue_trial(trial.params, user_attrs={ENQUEUED: origin})


def _load(place: str) -> optuna.Study:
    where, _, name = place.partition("#")
    if "://" not in where and not Path(where).is_file():
        raise UserError("there is no such journal", field="warm_start", value=where)
    storage = open_storage(where)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage=storage)]
    if (name or len(names) != 1) and name not in names:
        raise UserError("name one study as STORAGE#STUDY", field="warm_start", value=place, allowed=", ".join(names))
    return optuna.load_study(study_name=name or names[0], storage=storage)


def _fits(trial: FrozenTrial, space: Space) -> bool:
    """Whether the trial's parameters are those that the space would ask for, with values inside it."""
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    if not all(name in by_name and by_name[name].contains(value) for name, value in trial.params.items()):
        return False
    config = space.config_of(trial.params)
    return all(not d.active({**space.known(), **config}) or d.name in trial.params for d in space.dimensions)
