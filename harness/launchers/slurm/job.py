"""What happens inside a job: its runs, a checkpoint when SLURM asks for one, and whether the job is queued again.

One process of this kind a task. It trains nothing itself: each run has processes of its own (see
`launchers.process`), so that this one outlives them and can say how they ended. A run of several processes has one
task a rank; other runs share a job and are done in turn.

- USR2 (time limit, or preemption where the site sends it): checkpoints, then submitit queues the job again.
- TERM: checkpoints. SLURM queues the job again by itself where it was preempted or requeued; where the job
  is not ending at all (a grace period, a stray signal) it is queued again from here; a cancelled one stays cancelled.
- A failed run is tried again in the same job number unless it failed in the same way before.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission
from submitit.helpers import TorchDistributedEnvironment

from subnetbench.harness import environment
from subnetbench.harness.launchers.local import Devices
from subnetbench.harness.launchers.slurm import clients
from subnetbench.harness.launchers.slurm.fingerprint import differences, fingerprint
from subnetbench.harness.launchers.slurm.launching import RankLauncher, TaskLauncher, start_fork_server
from subnetbench.harness.launchers.slurm.ledger import Ledger
from subnetbench.harness.planning import visible_gpus
from subnetbench.harness.run_folder import RunFolder, read_json, write_json_text
from subnetbench.harness.specs import RunSpec, spec_from_json

# Time limits are free as long as a run gets on; `MOST_STANDSTILLS` ends what does not.
MOST_TIMEOUTS = 1_000_000
MOST_STANDSTILLS = 4
MOST_FAILURES = 5
# Trying again cannot help: these follow from the run itself.
FINAL_REASONS = ("nan", "code-changed", "foreign-checkpoint", "world-size", "pruned", "standstill")
# Heartbeats come every second while a run trains.
FRESH_SECONDS = 30.0
AGAIN_STATUS = 75


class Work:
    """The function that submitit calls with the ids of a job's runs; `checkpoint` is its answer to a signal."""

    def __call__(self, *run_ids: str) -> None:
        _Task(Path(os.environ["SUBMITIT_FOLDER"]), run_ids).run()

    def checkpoint(self, *run_ids: str) -> DelayedSubmission | None:
        """The same work again, unless it stood still since the last times; its state is in the runs' folders."""
        task = _Task(Path(os.environ["SUBMITIT_FOLDER"]), run_ids)
        return None if task.stands_still() else DelayedSubmission(self, *run_ids)


class _Task:
    def __init__(self, folder: Path, run_ids: Sequence[str]) -> None:
        self.folder = folder
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        self.results = Path(self.plan["results"])
        self.run_ids = list(run_ids)
        self.environment = JobEnvironment()
        self.is_first = self.environment.global_rank == 0
        self.asked: list[int] = []

    def run(self) -> None:
        """Do the runs; ends the process where the job failed or is to be queued again."""
        if not self._is_ours() or not self._code_is_the_same():
            sys.exit(1)
        user_signal = JobEnvironment._usr_sig()
        submitits_answer = signal.getsignal(user_signal)
        for number in (user_signal, signal.SIGTERM):
            signal.signal(number, self._note)
        start_fork_server(user_signal, signal.SIGTERM)
        todo = [spec for spec in map(self._spec, self.run_ids) if self._is_to_do(spec.run_id)]
        endings = self._do(todo)
        print(f"endings: {endings}", flush=True)
        if not self.is_first:
            sys.exit(0)
        if all(self._folder(run_id).finished_file.exists() for run_id in self.run_ids):
            return
        # All failures are noted, whether or not the first of them decides.
        verdicts = [self._may_try_again(spec.run_id) for spec in todo if endings.get(spec.run_id) == "failed"]
        unfinished = any(endings.get(spec.run_id) in (None, "interrupted", "elsewhere") for spec in todo)
        if any(verdicts) or (unfinished and self.asked):
            self._queue_again(submitits_answer if user_signal in self.asked else None)
        sys.exit(1)

    def stands_still(self) -> bool:
        """Whether nothing was trained since the last few times that the job was queued again; notes where it is."""
        where = [self._position(run_id) for run_id in self.run_ids]
        file = self.folder / f"position-{self.environment.array_task_id}.json"
        before = read_json(file) or {}
        times = before.get("times", 0) + 1 if before.get("where") == where else 0
        try:
            write_json_text(file, json.dumps({"where": where, "times": times}))
        except OSError as error:
            # Without a memory of what happened there would be no end to it.
            print(f"not queued again: {error}", flush=True)
            return True
        if times < MOST_STANDSTILLS:
            return False
        for run_id in self.run_ids:
            if not self._folder(run_id).finished_file.exists():
                self._fail(run_id, "standstill", f"it got no further in {times} jobs; a longer time limit may help")
        return True

    def _do(self, specs: Sequence[RunSpec]) -> dict[str, str]:
        if not specs:
            return {}
        launcher = self._launcher(specs)
        endings: dict[str, str] = {}
        waiting = list(specs)
        while waiting and not self.asked:
            busy = [spec for spec in waiting if self._is_busy(spec.run_id)]
            for spec in waiting:
                if spec not in busy:
                    launcher.submit(spec, **self.plan.get("own_settings", {}).get(spec.run_id, {}))
            while launcher.busy and not self.asked:
                launcher.poll()
            if self.asked:
                launcher.stop_all()
            endings |= launcher.endings
            # An earlier job that SLURM lost sight of may still be at work; it may as well finish.
            waiting = busy + [spec for spec in specs if launcher.endings.pop(spec.run_id, "") == "elsewhere"]
            if waiting and not self.asked:
                time.sleep(5)
        return endings

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked.append(number)

    def _launcher(self, specs: Sequence[RunSpec]) -> TaskLauncher:
        own = self.plan["settings"]
        settings = {
            **own,
            "data_root": Path(own["data_root"]),
            "plugins": tuple(map(Path, own["plugins"])),
            "trackers": tuple(own["trackers"]),
        }
        if not self.plan["gpus"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if self.plan["processes"] == 1:
            launcher = TaskLauncher(self.results, settings, Devices(cpu_slots=1, gpus=visible_gpus(specs)[:1]))
        else:
            launcher = RankLauncher(self.results, settings, self._place())
        for spec in specs:
            for each in spec.dependencies():
                finished = self._folder(each.run_id).finished_file.exists()
                launcher.endings[each.run_id] = "finished" if finished else "failed"
        return launcher

    def _place(self) -> dict[str, str]:
        """This task's rank, and where the ranks meet."""
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        # Another port each time: what is left of an earlier job may still hold the old one.
        number = int(re.sub(r"\D", "", self.environment.raw_job_id) or "0") * 31 + int(restarts)
        os.environ["MASTER_PORT"] = str(20000 + number % 12000)
        world = TorchDistributedEnvironment()
        return {
            "MASTER_ADDR": world.master_addr,
            "MASTER_PORT": str(world.master_port),
            "RANK": str(world.rank),
            "WORLD_SIZE": str(world.world_size),
            "LOCAL_RANK": str(world.local_rank),
            "LOCAL_WORLD_SIZE": str(world.local_world_size),
        }

    def _queue_again(self, submitits_answer: Any) -> NoReturn:
        """Queue the job again: by submitit's answer to its signal, where that came, else unless SLURM is ending it."""
        if callable(submitits_answer):
            submitits_answer(JobEnvironment._usr_sig(), None)
        try:
            job_id, name = self.environment.job_id, os.environ.get("SLURM_JOB_NAME", "")
            if not self.asked or (clients.goes_on(job_id, name) and not self.stands_still()):
                clients.requeue(job_id)
        except clients.SchedulerError as error:
            print(f"not queued again: {error}", flush=True)
        sys.exit(AGAIN_STATUS)

    def _may_try_again(self, run_id: str) -> bool:
        failure = self._folder(run_id).failure() or {}
        reason = str(failure.get("reason", "unknown"))
        # Figures, addresses and times differ between two failures that are the same.
        kind = f"{reason}: {re.sub(r'0x[0-9a-f]+|[0-9]+', '#', str(failure.get('message', '')))[:500]}"
        history = self._history(run_id)
        try:
            write_json_text(self._history_file(run_id), json.dumps({"failures": [*history, kind]}))
        except OSError as error:
            print(f"not queued again: {error}", flush=True)
            return False
        return reason not in FINAL_REASONS and kind not in history and len(history) + 1 < MOST_FAILURES

    def _is_to_do(self, run_id: str) -> bool:
        """Unless it is finished, or failed for good in an earlier turn of this job."""
        folder, history = self._folder(run_id), self._history(run_id)
        if folder.finished_file.exists():
            return False
        final = history and (history[-1] in history[:-1] or history[-1].split(":")[0] in FINAL_REASONS)
        return not (final or len(history) >= MOST_FAILURES)

    def _is_busy(self, run_id: str) -> bool:
        """Whether another process is at work on a run, as its heartbeat says."""
        folder = self._folder(run_id)
        progress = folder.progress() or {}
        if progress.get("ended") or time.time() - progress.get("time", 0.0) > FRESH_SECONDS:
            return False
        if folder.finished_file.exists():
            return False
        return progress.get("host") != environment.host() or Path(f"/proc/{progress.get('pid')}").exists()

    def _is_ours(self) -> bool:
        """The ledger decides who does a run: a job that was written off and turned up after all does nothing."""
        latest = Ledger(self.results).latest()
        for run_id in self.run_ids:
            submission = latest.get(run_id)
            if submission is None or submission.token != self.plan["token"] or submission.state == "cancelled":
                print(f"run {run_id} is no longer this job's: cancelled, or submitted again since", flush=True)
                return False
        return True

    def _code_is_the_same(self) -> bool:
        now = fingerprint(Path(path) for path in self.plan["settings"]["plugins"])
        changed = differences(self.plan["code"], now)
        if not changed:
            return True
        message = f"since this run was submitted there are changes in: {', '.join(changed)}"
        print(message, flush=True)
        if self.plan["code_changes"] == "allow":
            return True
        for run_id in self.run_ids:
            if self.is_first and not self._folder(run_id).finished_file.exists():
                self._fail(run_id, "code-changed", f"{message}; --retry-failed submits it again")
        return False

    def _fail(self, run_id: str, reason: str, message: str) -> None:
        facts = {"reason": reason, "message": message, "time": time.time()}
        write_json_text(self._folder(run_id).failure_file, json.dumps(facts))

    def _position(self, run_id: str) -> list[Any]:
        folder = self._folder(run_id)
        progress: Mapping[str, Any] = folder.progress() or {}
        return [folder.finished_file.exists(), progress.get("stage"), progress.get("step"), progress.get("phase")]

    def _history_file(self, run_id: str) -> Path:
        return self.folder / f"failures-{run_id}.json"

    def _history(self, run_id: str) -> list[str]:
        return list((read_json(self._history_file(run_id)) or {}).get("failures", []))

    def _folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.results, run_id)

    def _spec(self, run_id: str) -> RunSpec:
        return spec_from_json(self._folder(run_id).spec_file.read_bytes())
