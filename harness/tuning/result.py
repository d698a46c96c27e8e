"""What a tuning came to, as `tune` returns it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.tuning.cautions import cautions
from subnetbench.harness.tuning.gains import Gain
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.shared_inputs import sharing
from subnetbench.harness.tuning.space import Space
from subnetbench.harness.tuning.studies import StudiesRun
from subnetbench.harness.tuning.study import space_of
from subnetbench.harness.tuning.tables import trials_frame
from subnetbench.harness.tuning.tuning_file import Budget, StudyEntry, TuningFile

TuneStatus = Literal["planned", "submitted", "driving", "complete", "incomplete", "interrupted"]
"""`planned`: a dry run. `submitted`: the driver's job was submitted now. `driving`: it was in the queue already.
`incomplete`: a study found nothing, or a final run failed. `interrupted`: the same call resumes the tuning.
"""


@dataclass(frozen=True)
class BestTrial:
    """A trial that a search chose: its scores on validation data by metric, and the config that it stands for.

    `params` are the searched fields alone, as the study stores them.
    """

    number: int
    values: Mapping[str, float]
    config: UserValues
    params: UserValues


@dataclass(frozen=True)
class StudyResult:
    """One study. `best` holds the best trial, or the Pareto front of several objectives; empty if nothing was found.

    `trials` has one row a trial (the columns of `trials.csv`); `stopped` says why it ended short of its budget,
    `notes` what of an earlier study was left out and where sampler or pruner cannot do their work within the budget.
    """

    name: str
    label: str
    method: str
    dataset: str
    space: Space
    objectives: tuple[str, ...] = ()
    best: tuple[BestTrial, ...] = ()
    completed: int = 0
    device_hours: float = 0.0
    stopped: str | None = None
    notes: tuple[str, ...] = ()
    trials: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    @classmethod
    def planned(cls, content: TuningFile, entry: StudyEntry) -> "StudyResult":
        """A study before it is opened. Raises `UserError` for a space that cannot be searched."""
        label = str(entry.label)
        objectives = tuple(objective.metric for objective in content.objectives)
        name, space = f"{content.name}.{label}", space_of(content, entry)
        notes = (*cautions(content, space), *sharing(entry, space.fixed))
        return cls(name, label, str(entry.method), str(entry.dataset), space, objectives, notes=notes)

    @classmethod
    def of(cls, search: Search) -> "StudyResult":
        names = tuple(objective.metric for objective in search.objectives)
        best = tuple(
            BestTrial(
                trial.number,
                dict(zip(names, trial.values, strict=True)),
                search.space.config_of(trial.params),
                dict(trial.params),
            )
            for trial in search.best()
        )
        return cls(
            search.name,
            search.label,
            str(search.entry.method),
            str(search.entry.dataset),
            search.space,
            names,
            best,
            search.completed(),
            search.device_hours(),
            search.stopped,
            tuple(search.notes),
            trials_frame(search),
        )


@dataclass(frozen=True)
class TuneResult:
    """What a tuning came to, or what it would do (`status` is `planned` then).

    `budget` is that of each study. `final_runs` are the statuses of the runs on the test set by run id, `gains` tuned minus default on that set.
    `driver_job` is the id of the SLURM job that drives the studies; those are empty here until it is done.
    """

    name: str
    path: Path
    status: TuneStatus
    budget: Budget
    studies: tuple[StudyResult, ...] = ()
    final_runs: Mapping[str, str] = field(default_factory=dict)
    gains: tuple[Gain, ...] = ()
    driver_job: str = ""
    driver_state: str = ""

    @classmethod
    def of(cls, content: TuningFile, done: StudiesRun) -> "TuneResult":
        status: TuneStatus = "interrupted" if done.interrupted else "complete" if done.complete else "incomplete"
        studies = tuple(map(StudyResult.of, done.searches))
        return cls(content.name, done.results, status, content.budget, studies, done.statuses, tuple(done.gains))

    @property
    def best_config(self) -> UserValues:
        """The config that the only study with one objective chose.

        Raises `UserError` when there are several studies or objectives, or nothing was found.
        """
        if len(self.studies) != 1 or len(self.studies[0].best) != 1:
            raise UserError("there is no single best config; see the `best` of each study", field="studies")
        return self.studies[0].best[0].config

    @property
    def trials(self) -> pd.DataFrame:
        """The trials of all studies, one row each; the column `study` holds the study's label."""
        frames = [study.trials.assign(study=study.label) for study in self.studies]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
