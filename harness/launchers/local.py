"""The local launcher: a queue of runs, each in its own processes, on slots of CPU cores or GPUs."""

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from subnetbench.harness.errors import SubnetbenchError
from subnetbench.harness.launchers.process import ENDING, RankPlan, start_rank
from subnetbench.harness.run_folder import RunFolder, write_json_text
from subnetbench.harness.specs import RunSpec

PEERS_GRACE_SECONDS = 20.0
STOP_GRACE_SECONDS = 60.0

Event = Callable[[str, str, str], None]
"""Called with a run id, what happened (`started`, `finished`, `failed`, ...) and a detail."""


@dataclass
class Devices:
    """What runs share: CPU slots, and GPUs of which each serves `runs_per_gpu` runs at most."""

    cpu_slots: int
    gpus: tuple[str, ...] = ()
    runs_per_gpu: int = 1
    _load: dict[str, int] = field(default_factory=dict)
    _cpu_used: int = 0

    def take(self, spec: RunSpec) -> list[str] | None:
        """GPU ids for a run's ranks (none for a CPU run), or None when it must wait."""
        ranks = spec.compute.processes
        if self.gpus and spec.compute.device != "cpu":
            free = [gpu for gpu in self.gpus if self._load.get(gpu, 0) < self.runs_per_gpu]
            free.sort(key=lambda gpu: self._load.get(gpu, 0))
            if len(free) < min(ranks, len(self.gpus)):
                return None
            chosen = free[:ranks]
            for gpu in chosen:
                self._load[gpu] = self._load.get(gpu, 0) + 1
            return chosen
        needed = self._slots(spec)
        if self._cpu_used and self._cpu_used + needed > self.cpu_slots:
            return None
        self._cpu_used += needed
        return []

    def give_back(self, spec: RunSpec, gpus: Sequence[str]) -> None:
        for gpu in gpus:
            self._load[gpu] -= 1
        if not gpus:
            self._cpu_used -= self._slots(spec)

    def _slots(self, spec: RunSpec) -> int:
        return spec.compute.processes * spec.compute.threads


@dataclass
class _Running:
    spec: RunSpec
    folder: RunFolder
    ranks: list[BaseProcess]
    gpus: list[str]
    rendezvous: Path | None
    started: float
    started_at: float
    stop_asked: float | None = None

    def statuses(self) -> list[int | None]:
        return [rank.exitcode for rank in self.ranks]


class LocalLauncher:
    """Runs specs in local processes; a failed, hanging or killed run never takes the others with it."""

    def __init__(
        self,
        results: Path,
        settings: dict[str, Any],
        devices: Devices,
        *,
        on_event: Event = lambda run_id, event, detail: None,
        hang_seconds: float = 1800.0,
    ) -> None:
        self.results = results
        self.settings = settings
        self.devices = devices
        self.on_event = on_event
        self.hang_seconds = hang_seconds
        self.endings: dict[str, str] = {}
        self.running: dict[str, _Running] = {}
        self._queue: list[RunSpec] = []
        self._own_settings: dict[str, dict[str, Any]] = {}

    def submit(self, spec: RunSpec, **settings: Any) -> None:
        """Queue a run; `settings` are its own and win over those of all runs. Its inputs must be submitted too."""
        self.endings.pop(spec.run_id, None)
        self._own_settings[spec.run_id] = settings
        self._queue.append(spec)

    def poll(self) -> None:
        """Start what fits, and wait until a run ends, 0.1 s at most."""
        self._queue = self._start_what_fits(self._queue)
        self._wait()

    def run(self, specs: Sequence[RunSpec], *, tick: Callable[[], None] = lambda: None) -> dict[str, str]:
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
        return self.endings

    def stop(self, tick: Callable[[], None] = lambda: None) -> None:
        """Let every run write a checkpoint and end; they and what is still queued count as `interrupted`."""
        self._stop_all(tick)
        for spec in self._queue:
            self.endings.setdefault(spec.run_id, "interrupted")
        self._queue = []

    def _start_what_fits(self, queue: list[RunSpec]) -> list[RunSpec]:
        waiting = []
        for spec in queue:
            inputs = [self.endings.get(other.run_id, "waiting") for other in spec.dependencies()]
            if any(ending in ("failed", "blocked", "elsewhere") for ending in inputs):
                self._ended(spec.run_id, "blocked", "a run that it starts from failed")
            elif any(ending != "finished" for ending in inputs) or (gpus := self.devices.take(spec)) is None:
                waiting.append(spec)
            else:
                self._start(spec, gpus)
        return waiting

    def _start(self, spec: RunSpec, gpus: list[str]) -> None:
        folder = RunFolder(self.results, spec.run_id)
        folder.create(spec.model_dump_json(indent=1))
        folder.failure_file.unlink(missing_ok=True)
        size = spec.compute.processes
        rendezvous = folder.path / f"rendezvous-{uuid.uuid4().hex}" if size > 1 else None
        ranks = []
        for rank in range(size):
            environment = {"OMP_NUM_THREADS": str(spec.compute.threads)}
            if size > 1:
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
                environment |= {name: str(value) for name, value in places.items()}
            if self.devices.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            settings = {**self._settings_of(spec.run_id), "rendezvous": rendezvous}
            ranks.append(start_rank(RankPlan(folder.spec_file, self.results, settings, environment)))
        self.running[spec.run_id] = _Running(spec, folder, ranks, gpus, rendezvous, time.monotonic(), time.time())
        self.on_event(spec.run_id, "started", "")

    def _settings_of(self, run_id: str) -> dict[str, Any]:
        return {**self.settings, **self._own_settings.get(run_id, {})}

    def _wait(self) -> None:
        sentinels = [rank.sentinel for run in self.running.values() for rank in run.ranks if rank.exitcode is None]
        wait(sentinels, timeout=0.1)
        now = time.monotonic()
        for run_id, run in list(self.running.items()):
            statuses = run.statuses()
            if all(status is not None for status in statuses):
                del self.running[run_id]
                self._conclude(run)
            elif any(status is not None and status != 0 for status in statuses):
                # A rank is gone: its peers cannot go on. They get a moment to say why they ended.
                run.stop_asked = run.stop_asked or now
                if now - run.stop_asked > PEERS_GRACE_SECONDS:
                    _kill(run)
            elif self._hangs(run, now):
                self._write_failure(run, "hang", f"no sign of life for {self.hang_seconds:.0f} s")
                _kill(run)

    def _hangs(self, run: _Running, now: float) -> bool:
        progress = run.folder.progress()
        heartbeat = progress["time"] if progress else 0.0
        silent = min(time.time() - heartbeat, now - run.started)
        return silent > self.hang_seconds

    def _conclude(self, run: _Running) -> None:
        self.devices.give_back(run.spec, run.gpus)
        if run.rendezvous is not None:
            run.rendezvous.unlink(missing_ok=True)
        statuses = [status for status in run.statuses() if status is not None]
        worst = next((status for status in statuses if status != 0), 0)
        ending = ENDING.get(worst) or self._said(run) or "failed"
        if ending == "failed" and run.folder.failure() is None:
            self._write_failure(run, *_explain_status(statuses))
        failure = run.folder.failure() or {}
        self._ended(run.spec.run_id, ending, str(failure.get("message", "")))

    def _said(self, run: _Running) -> str | None:
        """How a run says it ended, where its status was lost (with the fork server, for one)."""
        progress = run.folder.progress() or {}
        return progress.get("ended") if progress.get("time", 0.0) > run.started_at else None

    def _write_failure(self, run: _Running, reason: str, message: str) -> None:
        from subnetbench.harness.recording import record_run

        facts = {"reason": reason, "message": message, "time": time.time()}
        settings = self._settings_of(run.spec.run_id)
        started = datetime.now(UTC) - timedelta(seconds=time.monotonic() - run.started)
        with contextlib.suppress(OSError, SubnetbenchError):
            write_json_text(run.folder.failure_file, json.dumps(facts))
            record_run(
                run.spec,
                run.folder,
                status="failed",
                started=started,
                reason=reason,
                error=message,
                **{name: settings[name] for name in ("sweep", "study", "trial", "tuned") if name in settings},
            )

    def _ended(self, run_id: str, ending: str, detail: str) -> None:
        self.endings[run_id] = ending
        self.on_event(run_id, ending, detail)

    def _stop_all(self, tick: Callable[[], None]) -> None:
        for run in self.running.values():
            self.on_event(run.spec.run_id, "stopping", "")
            for rank in run.ranks:
                if rank.exitcode is None and rank.pid is not None:
                    os.kill(rank.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        try:
            while self.running and time.monotonic() < deadline:
                self._wait()
                tick()
        except KeyboardInterrupt:
            pass
        for run in self.running.values():
            _kill(run)
            self._ended(run.spec.run_id, "interrupted", "killed before it could write a checkpoint")
        self.running.clear()


def _kill(run: _Running) -> None:
    for rank in run.ranks:
        if rank.exitcode is None:
            rank.kill()


def _explain_status(statuses: Sequence[int]) -> tuple[str, str]:
    signals = [-status for status in statuses if status < 0]
    if signal.SIGKILL in signals:
        return "killed", "a process of the run was killed (SIGKILL): out of memory, or by somebody"
    if signals:
        return "killed", f"a process of the run ended by {signal.Signals(signals[0]).name}"
    return "error", "a process of the run ended without saying why; see its log"


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
