"""The search: proposes the trials of a study, and tells the study how the runs of each ended.

A trial is one run a seed, all of the same configuration. What a study holds decides everything: a driver that was
killed at any instant finds its running trials there, and the runs themselves on the disk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial, TrialState

from subnetbench.harness.errors import SubnetbenchError, UserError
from subnetbench.harness.run_folder import RunFolder, read_json
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.tuning.launching import CODE_CHANGED, DIED, Ended
from subnetbench.harness.tuning.objectives import Constraint, Figures, Objective
from subnetbench.harness.tuning.reporting import reporting
from subnetbench.harness.tuning.samplers import ProposingStudy, make_sampler, random_sampler
from subnetbench.harness.tuning.study import (
    OUTCOME,
    REASON,
    RETRY_OF,
    SAME_AS,
    Study,
    device_seconds,
    failed_by_its_config,
)

IN_VAIN_LIMIT = 30
"""Proposals in a row of what is known already, after which a study has nothing new to propose."""
FAILED_ALLOWANCE = 10
"""Failed trials that a study may have beyond as many as completed ones, unless its file says otherwise."""


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


class Search(Study):
    """Proposes and tells the trials of a study. `stopped` says why it proposes no more, short of its budget."""

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
            if SAME_AS not in trial.user_attrs:
                break
            in_vain += 1
        if in_vain >= IN_VAIN_LIMIT:
            return f"the last {in_vain} proposals were known already: there is nothing new to propose"
        failed = sum(t.state == TrialState.FAIL and not {SAME_AS, RETRY_OF} & t.user_attrs.keys() for t in trials)
        limit = self.file.max_failed or FAILED_ALLOWANCE + self.completed()
        if failed > limit:
            return f"{failed} trials failed"
        if self.file.sampler["name"] == "grid":
            grid = make_sampler(self.file.sampler, self.space, self.file.seed, len(trials))
            if isinstance(grid, GridSampler) and grid.is_exhausted(self.study):
                return "the whole grid has been tried"
        return None

    def _proposing(self, number: int) -> optuna.Study:
        """The study with the sampler of one trial."""
        before = self.study.get_trials(deepcopy=False)[:number]
        if before and before[-1].state == TrialState.FAIL and SAME_AS in before[-1].user_attrs:
            # The sampler might propose the same for ever.
            sampler = random_sampler(self.file.seed, number)
        else:
            sampler = make_sampler(self.file.sampler, self.space, self.file.seed, number)
        return ProposingStudy(self.study, sampler, failed_by_its_config)

    def propose(self) -> Job | None:
        """Ask for the next trial; None when it could be told at once (known already, or no valid config)."""
        trials = self.study.get_trials(deepcopy=False)
        number = next((t.number for t in trials if t.state == TrialState.WAITING), len(trials))
        return self._begin(self._proposing(number).ask())

    def recover(self) -> list[Job]:
        """The trials that an earlier driver left running, as jobs; those that can be told are told."""
        # A driver may have died while it asked: the same sampler completes the parameters.
        running = self.trials(TrialState.RUNNING)
        jobs = [self._begin(optuna.Trial(self._proposing(t.number), t._trial_id)) for t in running]
        return [job for job in jobs if job is not None]

    def _begin(self, trial: optuna.Trial) -> Job | None:
        config = self.space.propose(trial)
        stored = self.study._storage.get_trial(trial._trial_id)
        if self._tell_known(stored):
            return None
        try:
            specs = [self.spec(config, seed) for seed in self.file.seeds]
        except SubnetbenchError as error:
            self.fail(stored, "invalid", str(error))
            return None
        return Job(stored, specs)

    def _tell_known(self, trial: FrozenTrial) -> bool:
        """Tell a trial at once whose configuration was tried before; a run is a function of its spec."""
        same = [t for t in self.trials() if t.number < trial.number and t.params == trial.params]
        died = [t for t in same if t.user_attrs.get(REASON, {}).get("kind") in DIED]
        settled = [t for t in same if t.state.is_finished() and t not in died]
        if not settled and len(died) > self.file.retries:
            settled = died[-1:]
        if not settled:
            return False
        earlier = settled[0]
        self._set(trial, SAME_AS, earlier.number)
        if earlier.state == TrialState.FAIL:
            told = earlier.user_attrs.get(REASON, {})
            self.fail(trial, str(told.get("kind")), f"failed before, as trial {earlier.number}: {told.get('message')}")
            return True
        for step, value in earlier.intermediate_values.items():
            self.study._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        for name in (OUTCOME,) if OUTCOME in earlier.user_attrs else ():
            self._set(trial, name, earlier.user_attrs[name])
        if earlier.state == TrialState.PRUNED:
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self._tell_values(trial, earlier.values, earlier.user_attrs[OUTCOME]["excess"])
        return True

    def settings(self, job: Job) -> dict[str, Any]:
        """Fields of `RunSettings` for the runs of a trial."""
        settings: dict[str, Any] = {"study": self.name, "trial": job.trial.number, "split": "validation"}
        if self.prunes_epochs:
            settings["reporting"] = reporting(self.storage_place, self.name, job.trial._trial_id, self.file.pruner)
        return settings

    def on_disk(self, job: Job) -> str | None:
        """How the next run of a trial ended, where it did: by an earlier driver of this trial, unseen."""
        folder = RunFolder(self.trials_folder, job.spec.run_id)
        if folder.finished_file.exists():
            return "finished"
        failure = folder.failure()
        begun = job.trial.datetime_start
        if failure is None or begun is None or failure.get("time", 0.0) < begun.timestamp():
            return None
        if failure.get("reason") == CODE_CHANGED:
            # Whoever starts a driver again has decided what is to become of that.
            return None
        return "pruned" if failure.get("reason") == "pruned" else "failed"

    def run_ended(self, job: Job, ended: Ended) -> bool:
        """Take note of the end of a trial's run. True when the trial is told; else its next run is due."""
        job.ended.append(ended)
        if ended.ending == "finished":
            return self._run_finished(job)
        if ended.ending == "pruned":
            self._set(job.trial, OUTCOME, self._outcome(job, {}, {}))
            self.study.tell(job.trial.number, state=TrialState.PRUNED)
            return True
        # A run that is blocked has not failed itself: the reason is that of its input.
        failed = [ended.run_id, *(spec.run_id for spec in job.spec.dependencies() if ended.ending == "blocked")]
        failures = [RunFolder(self.trials_folder, run_id).failure() for run_id in failed]
        failure: dict[str, Any] = next((each for each in reversed(failures) if each), {})
        kind, message = failure.get("reason", ended.ending), failure.get("message", "it ended without a reason")
        self._set(job.trial, OUTCOME, self._outcome(job, {}, {}))
        if kind in DIED:
            self._retry(job.trial)
        self.fail(job.trial, kind, message)
        return True

    def _run_finished(self, job: Job) -> bool:
        try:
            figures = self._figures(job)
        except (UserError, OSError) as error:
            self.fail(job.trial, "no-figure", str(error))
            return True
        bad = [name for name, values in figures.items() if not math.isfinite(values[-1])]
        if bad:
            self._set(job.trial, OUTCOME, self._outcome(job, {}, {}))
            self.fail(job.trial, "nan", f"not finite: {', '.join(bad)}")
            return True
        job.position += 1
        if job.position < len(job.specs):
            return self.file.pruner["name"] == "wilcoxon" and self._prune_between_seeds(job, figures)
        means = {name: fmean(values) for name, values in figures.items()}
        excess = {c.metric: c.excess(means[c.metric]) for c in self.constraints}
        self._set(job.trial, OUTCOME, self._outcome(job, means, excess))
        self._tell_values(job.trial, [means[objective.metric] for objective in self.objectives], excess)
        return True

    def _figures(self, job: Job) -> dict[str, list[float]]:
        """For each metric asked for, its value in each run of the trial that is finished."""
        found: dict[str, list[float]] = {}
        for spec in job.specs[: job.position + 1]:
            finished = read_json(RunFolder(self.trials_folder, spec.run_id).finished_file) or {}
            run = Figures.read(self.trials_folder / "records" / Path(str(finished.get("record"))).name)
            wanted_figures: list[Objective | Constraint] = [*self.objectives, *self.constraints]
            for wanted in wanted_figures:
                found.setdefault(wanted.metric, []).append(run.value(wanted))
        return found

    def _prune_between_seeds(self, job: Job, figures: dict[str, list[float]]) -> bool:
        trial = optuna.Trial(self.study, job.trial._trial_id)
        for step, value in enumerate(figures[self.objectives[0].metric]):
            if step not in self.study._storage.get_trial(job.trial._trial_id).intermediate_values:
                trial.report(value, step)
        if not trial.should_prune():
            return False
        self._set(job.trial, OUTCOME, self._outcome(job, {}, {}))
        self.study.tell(job.trial.number, state=TrialState.PRUNED)
        return True

    def _outcome(self, job: Job, figures: dict[str, float], excess: dict[str, float]) -> dict[str, Any]:
        seconds = {each.run_id: device_seconds(self.trials_folder, each.run_id) for each in job.ended}
        return {
            "figures": figures,
            "excess": excess,
            "device_seconds": seconds,
            "runs": [[each.run_id, each.started, each.time] for each in job.ended],
        }

    def _tell_values(self, trial: FrozenTrial, values: Sequence[float], excess: dict[str, float]) -> None:
        open_trial = optuna.Trial(self.study, trial._trial_id)
        for name, beyond in excess.items():
            open_trial.set_constraint(name, beyond)
        self.study.tell(trial.number, list(values))

    def fail(self, trial: FrozenTrial, kind: str, message: str) -> None:
        """Tell a trial as failed, with the reason."""
        first_line = (message.splitlines() or [""])[0][:500]
        self._set(trial, REASON, {"kind": kind, "message": first_line})
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _retry(self, trial: FrozenTrial) -> None:
        """Queue a dead trial's configuration again, once, unless it died often enough."""
        died = [t for t in self.trials(TrialState.FAIL) if t.params == trial.params]
        queued = any(t.user_attrs.get(RETRY_OF) == trial.number for t in self.trials())
        if len(died) < self.file.retries and not queued:
            self.study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})

    def _set(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, name, value)
