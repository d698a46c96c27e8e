"""Handing runs to SLURM: everything at once, each run at most once, nothing left behind that must stay alive."""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.plan import Plan
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm import commands, submitit_adapter
from subnetbench.harness.execution.slurm.arrays import JobArray, group
from subnetbench.harness.execution.slurm.commands import JobState
from subnetbench.harness.execution.slurm.fingerprint import differences, fingerprint
from subnetbench.harness.execution.slurm.job_plan import CodeChanges, JobPlan
from subnetbench.harness.execution.slurm.ledger import Ledger, Submission
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.execution.slurm.resources import Resources
from subnetbench.harness.execution.slurm.settle import settle
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec


@dataclass
class Outcome:
    """What became of the runs of a plan when it was submitted (or would, in a dry run)."""

    arrays: list[tuple[Submission, JobArray]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    in_queue: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def submitted(self) -> list[Submission]:
        """The arrays that the scheduler took."""
        return [submission for submission, _ in self.arrays if submission.state == "submitted"]


class Submitter:
    """Submits plans for one results folder.

    `settings` are those of all runs but those that have `own_settings`, by run id. `resources_of` says what a run's
    job requests; `code_changes` decides what happens when the program or its environment is no longer what it was
    when a run was submitted.
    """

    program = "subnetbench.harness.execution.slurm.start"

    def __init__(
        self,
        results: Path,
        name: str,
        settings: RunSettings,
        cluster: Cluster,
        resources_of: Callable[[RunSpec], Resources],
        *,
        code_changes: CodeChanges = "refuse",
    ) -> None:
        self.results = results
        self.name = name
        self.settings = settings
        self.own_settings: dict[str, RunSettings] = {}
        self.cluster = cluster
        self.resources_of = resources_of
        self.code_changes = code_changes
        self.ledger = Ledger(results)
        self.code = fingerprint(settings.plugins)

    def dry_run(self, plan: Plan) -> Outcome:
        """What `submit` would do now. Writes nothing; asks the scheduler only what it needs to."""
        open_submissions = [s for s in self.ledger.read() if s.state in ("submitting", "submitted")]
        outcome, arrays = self._prepare(plan, commands.queue(s.name for s in open_submissions))
        outcome.arrays = [(self._new(array), array) for array in arrays]
        return outcome

    def submit(self, plan: Plan) -> Outcome:
        """Submit what a plan has left to do and return. Whoever else submits at the same time waits.

        Raises `SchedulerError` when the scheduler cannot say what is queued, and `UserError` when half-finished
        runs would continue under other code; nothing is submitted then.
        """
        with self.ledger.lock() as lock:
            queue = settle(self.ledger)
            outcome, arrays = self._prepare(plan, queue)
            outcome.released = [job_id for job_id, job in queue.items() if job.held]
            commands.release(outcome.released)
            self._note_blocked(plan, outcome.blocked)
            job_of = self._jobs_in_queue(outcome.in_queue)
            for array in arrays:
                submission = self._new(array)
                outcome.arrays.append((submission, array))
                missing = [run_id for run_id in array.after if run_id not in job_of]
                if missing:
                    outcome.faults.append(f"{submission.name} was not submitted: no job for {', '.join(missing)}")
                    continue
                self._submit_one(submission, array, job_of, lock, outcome)
                if submission.state == "submitting":
                    break
                if submission.state == "submitted":
                    job_of |= dict(submission.jobs_of_runs())
        return outcome

    def script(self, submission: Submission, array: JobArray, job_of: Mapping[str, str]) -> str:
        """The batch file of an array, by submitit; `job_of` maps the runs it waits for to their jobs."""
        folder = self.ledger.jobs_folder(submission.token)
        resources = array.resources
        options: submitit_adapter.Options = {"requeue": True, **resources.sbatch}
        if array.after:
            jobs = sorted({job_of.get(run_id, f"<job of {run_id}>") for run_id in array.after})
            options |= {"dependency": "afterok:" + ":".join(jobs), "kill-on-invalid-dep": "yes"}
        directives = resources.directives(array.processes, array.threads)
        python = resources.python or shlex.quote(sys.executable)
        return submitit_adapter.batch_file(
            f"{python} -u -m {self.program} {shlex.quote(str(folder))}",
            folder,
            submission.name,
            len(array.jobs),
            setup=["export PYTHONSAFEPATH=1", *resources.setup],
            # Since SLURM 22.05 steps do not inherit it from the batch file.
            srun_options=[f"--cpus-per-task={directives['cpus_per_task']}", "--kill-on-bad-exit=0"],
            directives=directives,
            options=options,
        )

    def _prepare(self, plan: Plan, queue: Mapping[str, JobState]) -> tuple[Outcome, list[JobArray]]:
        latest = self.ledger.latest()
        outcome, todo = self._sort(plan, queue, latest)
        self._check_code(todo, latest)
        room = None
        if self.cluster.max_jobs is not None:
            room = self.cluster.max_jobs - sum(job.live for job in queue.values())
        largest = (self.cluster.max_array_size or commands.largest_array()) if todo else None
        arrays, left_out = group(todo, self.resources_of, outcome.in_queue, largest_array=largest, room=room)
        outcome.left_out = [spec.run_id for spec in left_out]
        return outcome, arrays

    def _sort(
        self, plan: Plan, queue: Mapping[str, JobState], latest: Mapping[str, Submission]
    ) -> tuple[Outcome, list[RunSpec]]:
        """Which runs of a plan are finished, in the queue, blocked, or to be submitted."""
        job_of = {run_id: job for s in latest.values() for run_id, job in s.jobs_of_runs() if latest.get(run_id) is s}
        outcome = Outcome()
        failed = set(plan.failed)
        todo: list[RunSpec] = []
        for spec in plan.specs:
            run_id = spec.run_id
            job = queue.get(job_of.get(run_id, ""))
            # Looked at again: somebody else may have held the lock for a while.
            if RunFolder(self.results, run_id).finished_file.exists() and run_id not in plan.afresh:
                outcome.finished.append(run_id)
            elif job is not None and job.live and not job.hopeless:
                outcome.in_queue.append(run_id)
                failed.discard(run_id)
            elif run_id in failed:
                continue
            elif any(each.run_id in failed for each in spec.dependencies()):
                outcome.blocked.append(run_id)
                failed.add(run_id)
            else:
                todo.append(spec)
        return outcome, todo

    def _check_code(self, todo: list[RunSpec], latest: Mapping[str, Submission]) -> None:
        """Refuse to continue half-finished runs under other code, unless that was allowed."""
        if self.code_changes == "allow":
            return
        for spec in todo:
            folder = RunFolder(self.results, spec.run_id)
            before = latest[spec.run_id].code if spec.run_id in latest else {}
            changed = differences(before, self.code) if before else []
            if changed and (folder.last_checkpoint.exists() or folder.model_file.exists()):
                raise UserError(
                    f"run {spec.run_id} is half-finished, and since it was submitted there are changes in: "
                    f"{', '.join(changed)}; `--code-changes allow` resumes it nevertheless"
                )

    def _jobs_in_queue(self, run_ids: list[str]) -> dict[str, str]:
        latest = self.ledger.latest()
        wanted = set(run_ids)
        return {run_id: job for s in latest.values() for run_id, job in s.jobs_of_runs() if run_id in wanted and job}

    def _new(self, array: JobArray) -> Submission:
        return self.ledger.new(self.name, array.run_ids(), after=array.after, code=self.code)

    def _note_blocked(self, plan: Plan, blocked: list[str]) -> None:
        latest = self.ledger.latest()
        for spec in plan.specs:
            if spec.run_id in blocked:
                self._create_run(spec)
                if spec.run_id not in latest or latest[spec.run_id].state != "blocked":
                    after = [each.run_id for each in spec.dependencies()]
                    self.ledger.write(self.ledger.new(self.name, [[spec.run_id]], state="blocked", after=after))

    def _submit_one(
        self, submission: Submission, array: JobArray, job_of: Mapping[str, str], lock: int, outcome: Outcome
    ) -> None:
        folder = self.ledger.jobs_folder(submission.token)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Pickles are code: nobody else may put one there.
        folder.mkdir(mode=0o700)
        for job in array.jobs:
            for spec in job:
                self._create_run(spec)
        script = folder / "submission.sh"
        script.write_text(self.script(submission, array, job_of))
        self.write_plan(folder, self.job_plan(submission, array))
        self.ledger.write(submission)
        try:
            submission.job = commands.submit(str(script), keep_open=(lock,))
        except commands.SchedulerSilent as error:
            outcome.faults.append(f"{error}; the same command finds out whether {submission.name} was submitted")
            return
        except commands.SchedulerError as error:
            submission.state, submission.detail = "refused", str(error)
            outcome.faults.append(str(error))
        else:
            submission.state = "submitted"
        self.ledger.write(submission)

    def _create_run(self, spec: RunSpec) -> None:
        folder = RunFolder(self.results, spec.run_id)
        folder.create(spec.model_dump_json(indent=1))
        folder.failure_file.unlink(missing_ok=True)

    def job_plan(self, submission: Submission, array: JobArray) -> JobPlan:
        """What the jobs of an array need to know."""
        runs = [run_id for job in submission.jobs for run_id in job]
        return JobPlan(
            token=submission.token,
            results=self.results,
            jobs=tuple(map(tuple, submission.jobs)),
            processes=array.processes,
            gpus=array.resources.gpus_requested,
            minutes=array.resources.minutes,
            settings=self.settings,
            own_settings={run: self.own_settings[run] for run in runs if run in self.own_settings},
            code=submission.code,
            code_changes=self.code_changes,
        )

    def write_plan(self, folder: Path, plan: JobPlan) -> None:
        """Write the plan of an array into the folder of its jobs; programs of other kinds add what they need."""
        plan.write(folder)
