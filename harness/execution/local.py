"""The local launcher: a queue of runs, each in its own processes, on slots of CPU cores or GPUs."""

import contextlib
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from subnetbench.harness.core.environment import usable_cpus
from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.core.registry import loaded_plugins
from subnetbench.harness.execution.devices import Devices, visible_gpus
from subnetbench.harness.execution.plan import Plan
from subnetbench.harness.execution.process import STATUS_OF, RankPlan, start_rank
from subnetbench.harness.execution.recording import record_failure
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.signals import termination_as_interrupt
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import Failure, Heartbeat, RunStatus

PEERS_GRACE_SECONDS = 20.0
STOP_GRACE_SECONDS = 60.0
_SUSPENDED_SECONDS = 30.0  # runs are looked at about ten times a second
RESUMPTIONS = 2
"""How often one command resumes a run whose process was killed (by the kernel for memory, or by somebody)."""

Event = Callable[[str, str, str], None]
"""Called with a run id, what happened (`started`, `stopping`, `resuming`, or a `RunStatus`) and a detail."""


def run_locally(
    plan: Plan,
    results: Path,
    settings: RunSettings,
    *,
    slots: int | None = None,
    runs_per_gpu: int = 1,
    on_event: Event = lambda run_id, event, detail: None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, RunStatus]:
    """Run what a plan has left to do on this machine; returns how each run of the plan ended."""
    launcher = LocalLauncher(
        results,
        replace(settings, plugins=tuple(loaded_plugins())),
        Devices(cpu_slots=slots or usable_cpus(), gpus=visible_gpus(plan.todo), runs_per_gpu=runs_per_gpu),
        on_event=on_event,
        resumptions=RESUMPTIONS,
    )
    launcher.statuses.update(dict.fromkeys(plan.finished, "finished"))
    launcher.statuses.update(dict.fromkeys(plan.failed, "failed"))
    return launcher.run(plan.todo, tick=tick)


@dataclass
class RunningRun:
    """A run under way: its processes, and what they hold."""

    spec: RunSpec
    folder: RunFolder
    ranks: list[BaseProcess]
    gpus: list[str]
    rendezvous: Path | None
    started: float
    """By the monotonic clock; `started_at` is seconds since the epoch."""
    started_at: float
    stop_requested: float | None = None
    was_killed: bool = False
    """A rank got SIGKILL, and not from this launcher."""
    ended_by_launcher: bool = False

    def exit_codes(self) -> list[int | None]:
        """Of each rank; None while it runs."""
        return [rank.exitcode for rank in self.ranks]

    def terminate(self) -> None:
        """Ask all ranks for a checkpoint and an end."""
        for rank in self.ranks:
            if rank.exitcode is None and rank.pid is not None:
                os.kill(rank.pid, signal.SIGTERM)

    def look(self) -> list[int | None]:
        """The exit codes, after noting whether somebody else killed a rank."""
        codes = self.exit_codes()
        self.was_killed |= not self.ended_by_launcher and -signal.SIGKILL in codes
        return codes

    def kill(self) -> None:
        """End all ranks at once."""
        self.ended_by_launcher = True
        for rank in self.ranks:
            if rank.exitcode is None:
                rank.kill()


def default_hang_seconds() -> float:
    """`$SUBNETBENCH_HANG_SECONDS`: how long a training run may give no sign of life; 0: for ever."""
    given = os.environ.get("SUBNETBENCH_HANG_SECONDS") or "1800"
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError("must be seconds", field="SUBNETBENCH_HANG_SECONDS", value=given, allowed=">= 0")
    return seconds


class LocalLauncher:
    """Runs specs in local processes; a training run without a sign of life for `hang_seconds` is ended. A failed, hanging or killed run never takes the others with it.

    `statuses` says how runs ended, by id; what is put there beforehand counts for the runs that start from them.
    """

    def __init__(
        self,
        results: Path,
        settings: RunSettings,
        devices: Devices,
        *,
        on_event: Event = lambda run_id, event, detail: None,
        hang_seconds: float | None = None,
        resumptions: int = 0,
    ) -> None:
        self.results = results
        self.settings = settings
        self.devices = devices
        self.on_event = on_event
        self.hang_seconds = default_hang_seconds() if hang_seconds is None else hang_seconds
        self._looked = self._awake_since = time.monotonic()
        self.resumptions = resumptions
        self.statuses: dict[str, RunStatus] = {}
        self.running: dict[str, RunningRun] = {}
        self._queue: list[RunSpec] = []
        self._own_settings: dict[str, RunSettings] = {}
        self._times_killed: Counter[str] = Counter()
        self._stopping = False

    def submit(self, spec: RunSpec, settings: RunSettings | None = None) -> None:
        """Queue a run, with settings of its own or those of all runs. Its inputs must be submitted too."""
        self.statuses.pop(spec.run_id, None)
        if settings is not None:
            self._own_settings[spec.run_id] = settings
        self._queue.append(spec)

    def poll(self) -> None:
        """Start what fits, and wait until a run ends, 0.1 s at most."""
        self._queue = self._start_what_fits(self._queue)
        self._wait()

    def run(self, specs: Sequence[RunSpec], *, tick: Callable[[], None] = lambda: None) -> dict[str, RunStatus]:
        """Run all specs, inputs first; returns how each ended.

        `tick` is called about ten times a second. Ctrl-C (or SIGTERM) lets every run write a checkpoint and end;
        they count as `interrupted`.
        """
        self._queue += specs
        with termination_as_interrupt():
            try:
                while self._queue or self.running:
                    self.poll()
                    tick()
            except KeyboardInterrupt:
                self.stop(tick)
        return self.statuses

    def stop(self, tick: Callable[[], None] = lambda: None) -> None:
        """Let every run write a checkpoint and end; they and what is still queued count as `interrupted`."""
        self._stop_running(tick)
        for spec in self._queue:
            self.statuses.setdefault(spec.run_id, "interrupted")
        self._queue = []

    def start(self, spec: RunSpec, gpus: list[str]) -> RunningRun:
        """Start the processes of a run."""
        folder = RunFolder(self.results, spec.run_id)
        folder.create(spec.model_dump_json(indent=1))
        folder.failure_file.unlink(missing_ok=True)
        size = spec.compute.processes
        rendezvous = folder.path / f"rendezvous-{uuid.uuid4().hex}" if size > 1 else None
        settings = replace(self.settings_of(spec.run_id), rendezvous=rendezvous)
        ranks = []
        for rank in range(size):
            environment = {"OMP_NUM_THREADS": str(spec.compute.threads)}
            if size > 1:
                ranking = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
                environment |= {name: str(value) for name, value in ranking.items()}
            if self.devices.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            ranks.append(start_rank(RankPlan(folder.spec_file, self.results, settings, environment)))
        return RunningRun(spec, folder, ranks, gpus, rendezvous, time.monotonic(), time.time())

    def settings_of(self, run_id: str) -> RunSettings:
        """The settings of one run."""
        return self._own_settings.get(run_id, self.settings)

    def record_failure(self, run: RunningRun, failure: Failure) -> None:
        """Write down that a run failed which could not do it itself, as far as the disk allows."""
        started = datetime.now(UTC) - timedelta(seconds=time.monotonic() - run.started)
        with contextlib.suppress(OSError, SubnetbenchError):
            record_failure(run.spec, run.folder, failure, settings=self.settings_of(run.spec.run_id), started=started)

    def _start_what_fits(self, queue: list[RunSpec]) -> list[RunSpec]:
        waiting = []
        for spec in queue:
            inputs = [self.statuses.get(other.run_id) for other in spec.dependencies()]
            if any(status in ("failed", "blocked", "elsewhere") for status in inputs):
                self._ended(spec.run_id, "blocked", "a run that it starts from failed")
            elif any(status != "finished" for status in inputs) or (gpus := self.devices.take(spec)) is None:
                waiting.append(spec)
            else:
                self.running[spec.run_id] = self.start(spec, gpus)
                self.on_event(spec.run_id, "started", "")
        return waiting

    def _wait(self) -> None:
        sentinels = [rank.sentinel for run in self.running.values() for rank in run.ranks if rank.exitcode is None]
        wait(sentinels, timeout=0.1)
        now = time.monotonic()
        if now - self._looked > _SUSPENDED_SECONDS:
            # This process was stopped, and the runs with it: their silence says nothing.
            self._awake_since = now
        self._looked = now
        for run_id, run in list(self.running.items()):
            codes = run.look()
            if all(code is not None for code in codes):
                del self.running[run_id]
                self._conclude(run)
            elif any(code is not None and code != 0 for code in codes):
                # A rank is gone: its peers cannot continue. They get a moment to say why they ended.
                run.stop_requested = run.stop_requested or now
                if now - run.stop_requested > PEERS_GRACE_SECONDS:
                    run.kill()
            elif not run.ended_by_launcher and self._hangs(run, now):
                self.record_failure(run, Failure("hang", f"no sign of life for {self.hang_seconds:.0f} s"))
                run.kill()

    def _hangs(self, run: RunningRun, now: float) -> bool:
        """Whether a run trains and gives no sign of life; loading data and evaluating may take as long as they take."""
        heartbeat = run.folder.heartbeat() or Heartbeat()
        if not self.hang_seconds or heartbeat.phase == "evaluating":
            return False
        return min(heartbeat.age, now - run.started, now - self._awake_since) > self.hang_seconds

    def _conclude(self, run: RunningRun) -> None:
        self.devices.give_back(run.spec, run.gpus)
        if run.rendezvous is not None:
            run.rendezvous.unlink(missing_ok=True)
        codes = [code for code in run.exit_codes() if code is not None]
        worst = next((code for code in codes if code != 0), 0)
        status = STATUS_OF.get(worst) or self._reported_status(run) or "failed"
        if status == "elsewhere" and run.folder.finished_file.exists():
            status = "finished"
        if status == "failed" and run.was_killed:
            if self._resumes(run):
                return
            # Peers of a killed rank say that they lost it, which is not why the run ended.
            self.record_failure(run, _explain(codes, self._times_killed[run.spec.run_id]))
        elif status == "failed" and run.folder.failure() is None:
            self.record_failure(run, _explain(codes))
        failure = run.folder.failure()
        self._ended(run.spec.run_id, status, failure.message if failure else "")

    def _resumes(self, run: RunningRun) -> bool:
        """Queue a run whose process was killed once more, as often as the launcher may."""
        self._times_killed[run.spec.run_id] += 1
        times = self._times_killed[run.spec.run_id]
        if times > self.resumptions or self._stopping:
            return False
        self._queue.insert(0, run.spec)
        detail = f"a process was killed (SIGKILL): resumption {times} of {self.resumptions}"
        self.on_event(run.spec.run_id, "resuming", detail)
        return True

    def _reported_status(self, run: RunningRun) -> RunStatus | None:
        """How a run says it ended, where its exit code was lost (with the fork server, for one)."""
        heartbeat = run.folder.heartbeat() or Heartbeat()
        return heartbeat.ended if heartbeat.time > run.started_at else None

    def _ended(self, run_id: str, status: RunStatus, detail: str) -> None:
        self.statuses[run_id] = status
        self.on_event(run_id, status, detail)

    def _stop_running(self, tick: Callable[[], None]) -> None:
        self._stopping = True
        for run in self.running.values():
            self.on_event(run.spec.run_id, "stopping", "")
            run.terminate()
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        try:
            while self.running and time.monotonic() < deadline:
                self._wait()
                tick()
        except KeyboardInterrupt:
            pass
        for run in self.running.values():
            run.kill()
            self._ended(run.spec.run_id, "interrupted", "killed before it could write a checkpoint")
        self.running.clear()


def _explain(exit_codes: Sequence[int], times: int = 1) -> Failure:
    """What exit codes of ranks say of a failure that no rank gave a reason for; `times` is how often it was killed."""
    signals = [-code for code in exit_codes if code < 0]
    if signal.SIGKILL in signals:
        often = f" {times} times" if times > 1 else ""
        remedy = "the same command resumes it; fewer --slots or a smaller micro_batch_size take less memory"
        return Failure(
            "killed", f"a process of the run was killed{often} (SIGKILL): out of memory, or by somebody; {remedy}"
        )
    if signals:
        return Failure("killed", f"a process of the run ended by {signal.Signals(signals[0]).name}")
    return Failure("error", "a process of the run ended without giving a reason; see its log")
