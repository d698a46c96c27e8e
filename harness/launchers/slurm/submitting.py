"""Handing runs to SLURM: everything at once, each run at most once, nothing left behind that must stay alive."""

import json
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.clusters import Cluster
from subnetbench.harness.errors import UserError
from subnetbench.harness.launchers.slurm import clients
from subnetbench.harness.launchers.slurm.fingerprint import differences, fingerprint
from subnetbench.harness.launchers.slurm.grouping import JobArray, group
from subnetbench.harness.launchers.slurm.ledger import Ledger, Submission
from subnetbench.harness.launchers.slurm.resources import Resources
from subnetbench.harness.planning import Plan
from subnetbench.harness.run_folder import RunFolder, write_json_text
from subnetbench.harness.specs import RunSpec

CodeChanges = Literal["refuse", "allow"]

DIGEST_SECONDS = 3.0


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
        return [submission for submission, _ in self.arrays if submission.state == "submitted"]


class Submitter:
    """Submits plans for one results folder.

    `settings` are those of `RunSettings`; `own_settings`, by run id, win over them. `resources_of` says what a run's
    job asks for; `code_changes` decides what happens when the program or its environment is no longer what it was
    when a run was submitted.
    """

    program = "subnetbench.harness.launchers.slurm.start"

    def __init__(
        self,
        results: Path,
        name: str,
        settings: Mapping[str, Any],
        cluster: Cluster,
        resources_of: Callable[[RunSpec], Resources],
        *,
        code_changes: CodeChanges = "refuse",
    ) -> None:
        self.results = results
        self.name = name
        self.settings = dict(settings)
        self.own_settings: dict[str, Mapping[str, Any]] = {}
        self.cluster = cluster
        self.resources_of = resources_of
        self.code_changes = code_changes
        self.ledger = Ledger(results)
        self.code = fingerprint(self.settings.get("plugins", ()))

    def dry_run(self, plan: Plan) -> Outcome:
        """What `submit` would do now. Writes nothing; asks the scheduler only what it needs to."""
        open_submissions = [s for s in self.ledger.read() if s.state in ("submitting", "submitted")]
        outcome, arrays = self._prepare(plan, clients.queue(s.name for s in open_submissions))
        outcome.arrays = [(self._new(array), array) for array in arrays]
        return outcome

    def submit(self, plan: Plan) -> Outcome:
        """Submit what a plan has left to do and return. Whoever else submits at the same time waits.

        Raises `SchedulerError` when the scheduler cannot say what is queued, and `UserError` when half-finished
        runs would go on under other code; nothing is submitted then.
        """
        with self.ledger.lock() as lock:
            queue = settle(self.ledger)
            outcome, arrays = self._prepare(plan, queue)
            outcome.released = [job_id for job_id, job in queue.items() if job.held]
            clients.release(outcome.released)
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
                    job_of |= dict(submission.places())
        return outcome

    def script(self, submission: Submission, array: JobArray, job_of: Mapping[str, str]) -> str:
        """The batch file of an array, by submitit; `job_of` maps the runs it waits for to their jobs."""
        from submitit.slurm.slurm import _make_sbatch_string

        folder = self.ledger.jobs_folder(submission.token)
        resources = array.resources
        options: dict[str, Any] = {"requeue": True, **resources.sbatch}
        if array.after:
            jobs = sorted({job_of.get(run_id, f"<job of {run_id}>") for run_id in array.after})
            options |= {"dependency": "afterok:" + ":".join(jobs), "kill-on-invalid-dep": "yes"}
        directives = resources.directives(array.processes, array.threads)
        python = resources.python or shlex.quote(sys.executable)
        return str(
            _make_sbatch_string(
                command=f"{python} -u -m {self.program} {shlex.quote(str(folder))}",
                folder=folder,
                job_name=submission.name,
                map_count=len(array.jobs),
                setup=["export PYTHONSAFEPATH=1", *resources.setup],
                # Since SLURM 22.05 steps do not inherit it from the batch file.
                srun_args=[f"--cpus-per-task={directives['cpus_per_task']}", "--kill-on-bad-exit=0"],
                stderr_to_stdout=True,
                wckey=None,
                additional_parameters={k.replace("_", "-"): v for k, v in options.items() if v is not False},
                **directives,
            )
        )

    def _prepare(self, plan: Plan, queue: Mapping[str, clients.JobState]) -> tuple[Outcome, list[JobArray]]:
        latest = self.ledger.latest()
        places = {run_id: job for s in latest.values() for run_id, job in s.places() if latest.get(run_id) is s}
        outcome = Outcome()
        failed = set(plan.failed)
        todo: list[RunSpec] = []
        for spec in plan.specs:
            run_id = spec.run_id
            job = queue.get(places.get(run_id, ""))
            # Looked at again: somebody else may have held the lock for a while.
            if RunFolder(self.results, run_id).finished_file.exists():
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
        self._check_code(todo, latest)
        room = None
        if self.cluster.max_jobs is not None:
            room = self.cluster.max_jobs - sum(job.live for job in queue.values())
        largest = (self.cluster.max_array_size or clients.largest_array()) if todo else None
        arrays, left_out = group(todo, self.resources_of, outcome.in_queue, largest_array=largest, room=room)
        outcome.left_out = [spec.run_id for spec in left_out]
        return outcome, arrays

    def _check_code(self, todo: list[RunSpec], latest: Mapping[str, Submission]) -> None:
        """Refuse to go on with half-finished runs under other code, unless that was allowed."""
        if self.code_changes == "allow":
            return
        for spec in todo:
            folder = RunFolder(self.results, spec.run_id)
            before = latest[spec.run_id].code if spec.run_id in latest else {}
            changed = differences(before, self.code) if before else []
            if changed and (folder.last_checkpoint.exists() or folder.model_file.exists()):
                raise UserError(
                    f"run {spec.run_id} is half-finished, and since it was submitted there are changes in: "
                    f"{', '.join(changed)}; `--code-changes allow` goes on nevertheless"
                )

    def _jobs_in_queue(self, run_ids: list[str]) -> dict[str, str]:
        latest = self.ledger.latest()
        wanted = set(run_ids)
        return {run_id: job for s in latest.values() for run_id, job in s.places() if run_id in wanted and job}

    def _new(self, array: JobArray) -> Submission:
        return self.ledger.new(self.name, array.run_ids(), after=list(array.after), code=self.code)

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
        write_json_text(folder / "plan.json", json.dumps(self._job_plan(submission, array), indent=1))
        self.ledger.write(submission)
        try:
            submission.job = clients.submit(str(script), keep_open=(lock,))
        except clients.SchedulerSilent as error:
            outcome.faults.append(f"{error}; the same command finds out whether {submission.name} was submitted")
            return
        except clients.SchedulerError as error:
            submission.state, submission.detail = "refused", str(error)
            outcome.faults.append(str(error))
        else:
            submission.state = "submitted"
        self.ledger.write(submission)

    def _create_run(self, spec: RunSpec) -> None:
        folder = RunFolder(self.results, spec.run_id)
        folder.create(spec.model_dump_json(indent=1))
        folder.failure_file.unlink(missing_ok=True)

    def _job_plan(self, submission: Submission, array: JobArray) -> dict[str, Any]:
        """What the jobs need to know; plain data, read by `job`."""
        settings = {
            **self.settings,
            "data_root": str(self.settings["data_root"]),
            "plugins": [str(path) for path in self.settings.get("plugins", ())],
        }
        return {
            "token": submission.token,
            "results": str(self.results),
            "jobs": submission.jobs,
            "processes": array.processes,
            "gpus": array.resources.gpus,
            "minutes": array.resources.minutes,
            "settings": settings,
            "own_settings": {run: self.own_settings[run] for run, _ in submission.places() if run in self.own_settings},
            "code": submission.code,
            "code_changes": self.code_changes,
        }


def settle(ledger: Ledger) -> dict[str, clients.JobState]:
    """What the scheduler knows of a ledger's jobs; submissions whose fate is unknown are looked up by name.

    To be called with the ledger's lock held. Raises `SchedulerError` when the scheduler does not answer.
    """
    submissions = [s for s in ledger.read() if s.state in ("submitting", "submitted")]
    unknown = [s for s in submissions if s.state == "submitting"]
    here = [s.created for s in unknown if s.host == socket.gethostname()]
    if here:
        # The lock was held until their sbatch had ended; the scheduler gets a moment to digest what it was told.
        time.sleep(min(max(max(here) + DIGEST_SECONDS - time.time(), 0), DIGEST_SECONDS))
    queue = clients.queue(s.name for s in submissions)
    by_name = {job.name: job_id for job_id, job in queue.items()}
    missing = [s for s in unknown if s.name not in by_name]
    if missing:
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(min(s.created for s in missing) - 3600))
        try:
            ended = clients.accounting((s.name for s in missing), since)
        except clients.SchedulerError:
            ended = {}
        by_name |= {job.name: job_id for job_id, job in ended.items()}
    for submission in unknown:
        if submission.name in by_name:
            submission.job, submission.state = by_name[submission.name].split("_")[0], "submitted"
        elif submission.created not in here and time.time() - submission.created < 2 * clients.time_limit():
            # Its sbatch may still be under way on another machine.
            raise clients.SchedulerError(
                f"whether {submission.name} was submitted cannot be said yet; try again in a minute"
            )
        else:
            submission.state = "lost"
            submission.detail = "the scheduler never heard of it"
        ledger.write(submission)
    return queue


def cancel_all(ledger: Ledger) -> list[str]:
    """Cancel every job of a results folder that waits or runs; returns the cancelled jobs' ids."""
    if not ledger.exists():
        return []
    with ledger.lock():
        queue = settle(ledger)
        live = [job_id for job_id, job in queue.items() if job.live]
        numbers = {job_id.split("_")[0] for job_id in live}
        for submission in ledger.read():
            if submission.job in numbers and submission.state == "submitted":
                submission.state = "cancelled"
                ledger.write(submission)
        clients.cancel(sorted(numbers))
    return live
