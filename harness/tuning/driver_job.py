"""What a driver's job does: `python -m subnetbench.harness.tuning.driver_job JOB_FOLDER`.

The driver keeps nothing that the studies, the ledger and the runs' folders do not hold, so its job may end at any
time; trials go on in jobs of their own.

- USR2 (the time limit is near): it lets go of the trials and queues its job again.
- TERM: the same, but SLURM queues a preempted job again by itself, and a cancelled one stays cancelled.

It leaves files as a run does, in `runs/driver`: a heartbeat, and how it ended.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from subnetbench.harness import environment
from subnetbench.harness.errors import SubnetbenchError
from subnetbench.harness.launchers.slurm import clients
from subnetbench.harness.launchers.slurm.fingerprint import differences, fingerprint
from subnetbench.harness.launchers.slurm.ledger import DRIVER, Ledger
from subnetbench.harness.run_folder import RunFolder, write_json_text

if TYPE_CHECKING:
    from subnetbench.harness.tuning.search import Search
    from subnetbench.harness.tuning.tune import Tuned

AGAIN_STATUS = 75
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
REQUEUE_TRIES = 5


class DriverJob:
    """One turn of the job that drives a tuning."""

    def __init__(self, folder: Path) -> None:
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        self.results = Path(self.plan["results"])
        self.files = RunFolder(self.results, DRIVER)
        self.out_of_time = False
        self._began = time.time()
        self._beaten = 0.0
        self._facts: dict[str, Any] = {"stage": "search", "pid": os.getpid(), "host": environment.host()}

    def run(self) -> int:
        """Drive until the studies are done or SLURM wants the job to end; the job's exit status."""
        signal.signal(signal.SIGUSR2, self._time_is_up)
        if self._cancelled():
            print("cancelled, or submitted again since", flush=True)
            return 1
        try:
            self._check_code()
            tuned = self._tune()
        except KeyboardInterrupt:
            return self._queue_again()
        except SubnetbenchError as error:
            return self._fail(str(error))
        except Exception as error:
            traceback.print_exc()
            return self._fail(f"{type(error).__name__}: {error}")
        if tuned.interrupted:
            return self._queue_again()
        self._beat(ended="finished")
        write_json_text(self.files.finished_file, json.dumps({"time": time.time(), "complete": tuned.complete}))
        return 0 if tuned.complete else 1

    def _tune(self) -> "Tuned":
        from subnetbench.harness.clusters import Cluster
        from subnetbench.harness.registry import load_plugin
        from subnetbench.harness.tuning.on_slurm import slurm_launcher, slurm_workers
        from subnetbench.harness.tuning.storage import AlreadyDriven
        from subnetbench.harness.tuning.tune import tune
        from subnetbench.harness.tuning.tuning_file import TuningFile

        settings = self.plan["settings"]
        for plugin in settings["plugins"]:
            load_plugin(Path(plugin))
        content = TuningFile.parse(settings["file"], where="tuning")
        cluster = Cluster.parse(settings["cluster"], where="profile")
        hooks = {"cancelled": self._cancelled, "tick": self._tick, "say": _say}
        while True:
            try:
                return tune(
                    content,
                    results=self.results,
                    storage=settings["storage"],
                    workers=slurm_workers(content, cluster, settings["workers"]),
                    data_root=Path(settings["data_root"]),
                    trackers=list(settings["trackers"]) or ["none"],
                    final=settings["final"],
                    make_launcher=slurm_launcher(content, cluster, self.plan["code_changes"], **hooks),
                    say=_say,
                    watch=self._watch,
                )
            except AlreadyDriven as error:
                # As after a node that SLURM lost sight of, whose driver lives on.
                _say(f"{error}; waiting")
                self._tick()
                time.sleep(PATIENCE_SECONDS)

    def _watch(self, searches: "Sequence[Search]") -> None:
        trials = [search.file.budget.trials for search in searches]
        done = sum(search.completed() for search in searches)
        if None not in trials:
            self._facts |= {"epoch": done, "epochs": sum(map(int, filter(None, trials)))}
        if all(search.stopped or not search.wants_trial(0) for search in searches):
            self._facts["stage"] = "final runs"
        self._beat()

    def _tick(self) -> None:
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beat()

    def _beat(self, **facts: Any) -> None:
        self._beaten = time.monotonic()
        self._facts |= {"time": time.time(), "seconds": time.time() - self._began, **facts}
        write_json_text(self.files.progress_file, json.dumps(self._facts))

    def _time_is_up(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        self.out_of_time = True
        raise KeyboardInterrupt

    def _queue_again(self) -> int:
        """Put the job back into the queue, unless SLURM does it by itself or nobody wants it."""
        self._beat(ended="interrupted")
        if self._cancelled():
            return 1
        job_id = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        for _ in range(REQUEUE_TRIES):
            try:
                if self.out_of_time or clients.goes_on(job_id, os.environ["SLURM_JOB_NAME"]):
                    _say("queued again")
                    clients.requeue(job_id)
                break
            except clients.SchedulerError as error:
                _say(f"not queued again: {error}")
                time.sleep(PATIENCE_SECONDS)
        return AGAIN_STATUS

    def _cancelled(self) -> bool:
        submission = Ledger(self.results).latest().get(DRIVER)
        return submission is None or submission.token != self.plan["token"] or submission.state == "cancelled"

    def _check_code(self) -> None:
        changed = differences(self.plan["code"], fingerprint(Path(path) for path in self.plan["settings"]["plugins"]))
        if changed:
            message = f"since the driver was submitted there are changes in: {', '.join(changed)}"
            if self.plan["code_changes"] == "refuse":
                raise SubnetbenchError(f"{message}; `--code-changes allow` goes on nevertheless")
            _say(message)

    def _fail(self, message: str) -> int:
        _say(f"error: {message}")
        self._beat(ended="failed")
        facts = {"reason": "error", "message": message, "time": time.time()}
        write_json_text(self.files.failure_file, json.dumps(facts))
        return 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(DriverJob(Path(sys.argv[1])).run())
