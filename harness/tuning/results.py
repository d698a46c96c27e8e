"""What the runs of a trial came to, as its study is to hold it.

A trial is one run a seed, all of the same configuration.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.tuning.attributes import (
    OUTCOME,
    REASON,
    RETRY_OF,
    FailureReason,
    RunTimes,
    TrialOutcome,
    is_comparable,
    retry_of,
)
from subnetbench.harness.tuning.objectives import Constraint, Objective, RunScores
from subnetbench.harness.tuning.optuna_adapter import (
    PartOfStudy,
    open_trial,
    set_attribute,
    set_constraints,
    stored_trial,
    trial_id,
)
from subnetbench.harness.tuning.study import Study, device_seconds
from subnetbench.harness.tuning.trial_launchers import CODE_CHANGED, DIED, Ended


@dataclass
class Job:
    """A trial under way: `position` is the seed whose run comes next, `ended` the runs that are over."""

    trial: FrozenTrial
    specs: list[RunSpec]
    position: int = 0
    ended: list[Ended] = field(default_factory=list)

    @property
    def spec(self) -> RunSpec:
        return self.specs[self.position]


class StudyResults(Study):
    """A study that takes the results of its trials."""

    def on_disk(self, job: Job) -> str | None:
        """The status of a trial's next run, where an earlier driver of this trial did not see its end."""
        folder = RunFolder(self.trials_folder, job.spec.run_id)
        if folder.finished_file.exists():
            return "finished"
        failure = folder.failure()
        begun = job.trial.datetime_start
        if failure is None or begun is None or failure.time < begun.timestamp():
            return None
        if failure.reason == CODE_CHANGED:
            # Whoever starts a driver again has decided what is to become of that.
            return None
        return "pruned" if failure.reason == "pruned" else "failed"

    def run_ended(self, job: Job, ended: Ended) -> bool:
        """Take note of the end of a trial's run. True when the trial is over; else its next run is due."""
        job.ended.append(ended)
        if ended.status == "finished":
            return self._run_finished(job)
        self._set_outcome(job)
        if ended.status == "pruned":
            self._prune(job)
            return True
        # A run that is blocked has not failed itself: the reason is that of its input.
        failed = [ended.run_id, *(spec.run_id for spec in job.spec.dependencies() if ended.status == "blocked")]
        reason = FailureReason(ended.status, "it ended without a reason")
        for failure in (RunFolder(self.trials_folder, run_id).failure() for run_id in failed):
            if failure:
                reason = FailureReason(failure.reason, failure.message)
        if reason.kind in DIED:
            self._retry(job.trial)
        self.fail(job.trial, reason)
        return True

    def fail(self, trial: FrozenTrial, reason: FailureReason) -> None:
        """End a trial as failed."""
        first_line = (reason.message.splitlines() or [""])[0][:500]
        set_attribute(self.study, trial, REASON, FailureReason(reason.kind, first_line).to_json())
        self.study.tell(trial.number, state=TrialState.FAIL)

    def complete(self, trial: FrozenTrial, values: Sequence[float], excess: Mapping[str, float]) -> None:
        """End a trial with the values of the objectives, and how far it is beyond each constraint."""
        set_constraints(self.study, trial, excess)
        self.study.tell(trial.number, list(values))

    def _run_finished(self, job: Job) -> bool:
        try:
            scores = self._scores(job)
        except (UserError, OSError) as error:
            self.fail(job.trial, FailureReason("no-metric", str(error)))
            return True
        bad = [name for name, values in scores.items() if not math.isfinite(values[-1])]
        if bad:
            self._set_outcome(job)
            self.fail(job.trial, FailureReason("nan", f"not finite: {', '.join(bad)}"))
            return True
        job.position += 1
        if job.position < len(job.specs):
            return self.file.pruner.name == "wilcoxon" and self._prune_between_seeds(job, scores)
        means = {name: fmean(values) for name, values in scores.items()}
        excess = {c.metric: c.excess(means[c.metric]) for c in self.constraints}
        self._set_outcome(job, means, excess)
        self.complete(job.trial, [means[objective.metric] for objective in self.objectives], excess)
        return True

    def _scores(self, job: Job) -> dict[str, list[float]]:
        """The value of each objective and constraint in each run of the trial that is finished."""
        found: dict[str, list[float]] = {}
        for spec in job.specs[: job.position + 1]:
            record = RunFolder(self.trials_folder, spec.run_id).record_file()
            if record is None:
                raise UserError(f"run {spec.run_id} names no record")
            run = RunScores.read(record)
            wanted: list[Objective | Constraint] = [*self.objectives, *self.constraints]
            for each in wanted:
                found.setdefault(each.metric, []).append(run.value(each))
        return found

    def _prune_between_seeds(self, job: Job, scores: Mapping[str, Sequence[float]]) -> bool:
        trial = open_trial(PartOfStudy(self.study, is_comparable), trial_id(job.trial))
        for step, value in enumerate(scores[self.objectives[0].metric]):
            if step not in stored_trial(self.study, trial_id(job.trial)).intermediate_values:
                trial.report(value, step)
        if not trial.should_prune():
            return False
        self._set_outcome(job)
        self._prune(job)
        return True

    def _prune(self, job: Job) -> None:
        self.study.tell(job.trial.number, state=TrialState.PRUNED)

    def _set_outcome(
        self, job: Job, values: Mapping[str, float] | None = None, excess: Mapping[str, float] | None = None
    ) -> None:
        seconds = {each.run_id: device_seconds(self.trials_folder, each.run_id) for each in job.ended}
        runs = tuple(RunTimes(each.run_id, each.started, each.time) for each in job.ended)
        outcome = TrialOutcome(values or {}, excess or {}, seconds, runs)
        set_attribute(self.study, job.trial, OUTCOME, outcome.to_json())

    def _retry(self, trial: FrozenTrial) -> None:
        """Queue a dead trial's configuration again, once, unless it died often enough."""
        died = [t for t in self.trials(TrialState.FAIL) if t.params == trial.params]
        queued = any(retry_of(t) == trial.number for t in self.trials())
        if len(died) < self.file.retries and not queued:
            self.study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})
