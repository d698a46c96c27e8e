"""What a study starts with: configurations that are tried first, and the trials of earlier studies."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.tuning.attributes import ENQUEUED, WARM, is_own
from subnetbench.harness.tuning.objectives import Objective
from subnetbench.harness.tuning.optuna_adapter import PartOfStudy
from subnetbench.harness.tuning.space import Space
from subnetbench.harness.tuning.storage import open_storage


def enqueue(study: optuna.Study, space: Space, configs: Sequence[UserValues], label: str) -> None:
    """Queue given configurations, each once, however often a driver starts."""
    for number, config in enumerate(configs):
        labels = space.labels_of(config, f"{label}.enqueue[{number}]")
        if not any(trial.user_attrs.get(ENQUEUED) == number for trial in study.get_trials(deepcopy=False)):
            study.enqueue_trial(labels, user_attrs={ENQUEUED: number})


@dataclass(frozen=True)
class Earlier:
    """What was taken from an earlier study: `taken` of `completed` trials, `left_out` as counts by reason.

    `best` is its best trial in words with the reason why it was left out (empty: it was taken), `first` the one that is
    tried first (empty: none).
    """

    study: str
    completed: int
    taken: int
    left_out: Mapping[str, int]
    best: tuple[str, str]
    first: str

    def notes(self) -> Iterator[str]:
        """What a reader must know: which trials were left out and why, and whether the best is among them."""
        if not self.left_out:
            return
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self.left_out.items())
        yield (
            f"warm start: {self.completed - self.taken:,} of {self.completed:,} completed trials of {self.study} are left "
            f"out, since they do not fit the space of this study ({reasons})"
        )
        best, reason = self.best
        if reason:
            instead = f"{self.first}, the best that fits, is tried first" if self.first else "none of its trials fits"
            yield f"warm start: the best of {self.study}, {best}, is left out ({reason}); {instead}"


def add_earlier_trials(study: optuna.Study, space: Space, url: str, objectives: Sequence[Objective]) -> Earlier:
    """Let the sampler learn from an earlier study, and try the best of its configurations that fits first.

    Trials inside the present space are added. They count for no budget, are never selected, no pruner compares with
    them, and importances leave them out: they may come from other data or another budget.

    Raises:
        UserError: the study is not there or has other objectives.
    """
    earlier = _load(url)
    directions = [direction.name.lower() for direction in earlier.directions]
    if directions != [objective.direction for objective in objectives]:
        raise UserError("the earlier study has other objectives", field="warm_start", value=url, allowed=directions)
    known = {trial.user_attrs.get(WARM) for trial in study.get_trials(deepcopy=False)}
    completed = [t for t in earlier.get_trials(states=(TrialState.COMPLETE,)) if is_own(t)]
    faults = {t.number: fault for t in completed if (fault := _misfit(t, space)) is not None}
    usable = [t for t in completed if t.number not in faults]
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
    best = PartOfStudy(earlier, is_own).best_trials
    fitting = PartOfStudy(earlier, lambda t: is_own(t) and t.number not in faults).best_trials
    for trial in fitting[:1]:
        origin = f"{earlier.study_name}#{trial.number}"
        if not any(t.user_attrs.get(ENQUEUED) == origin for t in study.get_trials(deepcopy=False)):
            study.enqueue_trial(trial.params, user_attrs={ENQUEUED: origin})
    return Earlier(
        study=earlier.study_name,
        completed=len(completed),
        taken=len(usable),
        left_out=dict(Counter(kind for kind, _ in faults.values())),
        best=(_words(best[0]), faults.get(best[0].number, ("", ""))[1]) if best else ("", ""),
        first=_words(fitting[0]) if fitting else "",
    )


def _words(trial: FrozenTrial) -> str:
    values = ", ".join(f"{value:.6g}" for value in trial.values)
    return f"trial {trial.number} ({values})"


def _load(url: str) -> optuna.Study:
    storage_url, _, name = url.partition("#")
    if "://" not in storage_url and not Path(storage_url).is_file():
        raise UserError("there is no such journal", field="warm_start", value=storage_url)
    storage = open_storage(storage_url)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage=storage)]
    if (name or len(names) != 1) and name not in names:
        raise UserError("name one study as STORAGE#STUDY", field="warm_start", value=url, allowed=", ".join(names))
    return optuna.load_study(study_name=name or names[0], storage=storage)


def _misfit(trial: FrozenTrial, space: Space) -> tuple[str, str] | None:
    """Why the trial's parameters are not those that the space would ask for, in short and with the value; None if they
    are."""
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    for name, value in trial.params.items():
        if name not in by_name:
            return f"{name} is not searched here", f"{name} = {value} is not searched here"
        if not by_name[name].contains(value):
            return f"{name} outside", f"{name} = {value} is outside {by_name[name].words}"
    config = {**space.known(), **space.config_of(trial.params)}
    for dimension in space.dimensions:
        if dimension.active(config) and dimension.name not in trial.params:
            return (f"{dimension.name} was not searched there",) * 2
    return None
