"""The search: proposes the trials of a study.

What a study holds decides everything: a driver that was killed at any instant finds its running trials there, and the
runs themselves on the disk.
"""

from dataclasses import replace

import optuna
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.tuning.attributes import (
    OUTCOME,
    SAME_AS,
    FailureReason,
    TrialOutcome,
    retry_of,
    same_as,
)
from subnetbench.harness.tuning.optuna_adapter import (
    ProposingStudy,
    open_trial,
    set_attribute,
    set_reports,
    stored_trial,
    trial_id,
)
from subnetbench.harness.tuning.pruning import reporting
from subnetbench.harness.tuning.results import Job, StudyResults
from subnetbench.harness.tuning.samplers import make_sampler, random_sampler
from subnetbench.harness.tuning.study import failed_by_its_config
from subnetbench.harness.tuning.trial_launchers import DIED

IN_VAIN_LIMIT = 30
"""Proposals in a row of what is known already, after which a study has nothing new to propose."""
FAILED_ALLOWANCE = 10
"""Failed trials that a study may have beyond as many as completed ones, unless its file sets another number."""


class Search(StudyResults):
    """Proposes the trials of a study and takes their results. `stopped` is why it ends short of its budget."""

    stopped: str | None = None

    def wants_trial(self, in_flight: int) -> bool:
        """Whether another trial is to be proposed, while this many of the study are under way."""
        if self.stopped is None:
            self.stopped = self._reason_to_stop()
        if self.stopped is not None:
            return False
        budget = self.file.budget
        if budget.trials is not None:
            return self.completed() + in_flight < budget.trials
        assert budget.device_hours is not None
        spent, done = self.device_hours(), self.completed()
        expected = spent + in_flight * (spent / done if done else 0.0)
        return expected < budget.device_hours

    def _reason_to_stop(self) -> str | None:
        trials = self.trials()
        in_vain = 0
        for trial in reversed(trials):
            if same_as(trial) is None:
                break
            in_vain += 1
        if in_vain >= IN_VAIN_LIMIT:
            return f"the last {in_vain} proposals were known already: there is nothing new to propose"
        failed = sum(t.state == TrialState.FAIL and same_as(t) is None and retry_of(t) is None for t in trials)
        limit = self.file.max_failed or FAILED_ALLOWANCE + self.completed()
        if failed > limit:
            return f"{failed} trials failed"
        if self.file.sampler.name == "grid":
            grid = make_sampler(self.file.sampler, self.space, self.file.seed, len(trials))
            if isinstance(grid, GridSampler) and grid.is_exhausted(self.study):
                return "the whole grid has been tried"
        return None

    def _proposing(self, number: int) -> optuna.Study:
        """The study with the sampler of one trial."""
        before = self.study.get_trials(deepcopy=False)[:number]
        if before and before[-1].state == TrialState.FAIL and same_as(before[-1]) is not None:
            # The sampler might propose the same for ever.
            sampler = random_sampler(self.file.seed, number)
        else:
            sampler = make_sampler(self.file.sampler, self.space, self.file.seed, number)
        return ProposingStudy(self.study, sampler, failed_by_its_config)

    def propose(self) -> Job | None:
        """Ask for the next trial; None when it ended at once (known already, or no valid config)."""
        trials = self.study.get_trials(deepcopy=False)
        number = next((t.number for t in trials if t.state == TrialState.WAITING), len(trials))
        return self._begin(self._proposing(number).ask())

    def recover(self) -> list[Job]:
        """The trials that an earlier driver left running, as jobs; those whose result is known end at once."""
        # A driver may have died between two parameters: the same sampler completes the parameters.
        running = self.trials(TrialState.RUNNING)
        jobs = [self._begin(open_trial(self._proposing(t.number), trial_id(t))) for t in running]
        return [job for job in jobs if job is not None]

    def _begin(self, trial: optuna.Trial) -> Job | None:
        config = self.space.propose(trial)
        stored = stored_trial(self.study, trial_id(trial))
        if self._take_over(stored):
            return None
        try:
            specs = [self.spec(config, seed) for seed in self.file.seeds]
        except SubnetbenchError as error:
            self.fail(stored, FailureReason("invalid", str(error)))
            return None
        return Job(stored, specs)

    def _take_over(self, trial: FrozenTrial) -> bool:
        """End a trial at once whose configuration was tried before; a run is a function of its spec."""
        same = [t for t in self.trials() if t.number < trial.number and t.params == trial.params]
        died = [t for t in same if (reason := FailureReason.of(t)) is not None and reason.kind in DIED]
        settled = [t for t in same if t.state.is_finished() and t not in died]
        if not settled and len(died) > self.file.retries:
            settled = died[-1:]
        if not settled:
            return False
        earlier = settled[0]
        set_attribute(self.study, trial, SAME_AS, earlier.number)
        if earlier.state == TrialState.FAIL:
            reason = FailureReason.of(earlier) or FailureReason("unknown", "")
            message = f"failed before, as trial {earlier.number}: {reason.message}"
            self.fail(trial, FailureReason(reason.kind, message))
            return True
        set_reports(self.study, trial, earlier.intermediate_values)
        outcome = TrialOutcome.of(earlier)
        if OUTCOME in earlier.user_attrs:
            set_attribute(self.study, trial, OUTCOME, outcome.to_json())
        if earlier.state == TrialState.PRUNED:
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self.complete(trial, earlier.values, outcome.excess)
        return True

    def settings(self, job: Job, common: RunSettings) -> RunSettings:
        """The settings of a trial's runs, made from those that all runs of the launcher have in common."""
        callback = None
        if self.prunes_epochs:
            callback = reporting(self.storage_url, self.name, trial_id(job.trial), self.file.pruner)
        return replace(
            common,
            study=self.name,
            trial=job.trial.number,
            searched=self.space.names,
            split="validation",
            callback=callback,
        )
