"""One run, from spec to record: the function that every launcher calls in every process of the run."""

import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from subnetbench.harness import environment
from subnetbench.harness.artifacts import load_model, open_inputs, save_model
from subnetbench.harness.context import Context
from subnetbench.harness.data import TaskData, on_device
from subnetbench.harness.errors import DataError, SubnetbenchError
from subnetbench.harness.locks import locked_within
from subnetbench.harness.method import Method
from subnetbench.harness.paths import default_data_root
from subnetbench.harness.recording import record_run
from subnetbench.harness.records import Score, Status
from subnetbench.harness.registry import get_dataset, get_method
from subnetbench.harness.run_folder import RunFolder, write_json_text
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.tasks import PRIMARY_METRIC
from subnetbench.harness.training.monitor import Interrupted, Monitor, Pruned, PruneDecision, to_json
from subnetbench.harness.world import World, open_world

# The processes of a driver that was killed need a moment to write their checkpoints and go.
LOCK_PATIENCE_SECONDS = 20.0

Ending = Literal["finished", "failed", "interrupted", "pruned"]


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out, as far as its figures do not depend on it."""

    data_root: Path = field(default_factory=default_data_root)
    trackers: tuple[str, ...] = ("tensorboard",)
    sweep: str = ""
    study: str = ""
    trial: int | None = None
    tuned: bool = False
    search_cost: Mapping[str, float] = field(default_factory=dict)
    """What the search that chose the config cost, by metric; recorded beside the scores."""
    split: str = "test"
    """The split that is scored after training: trials of a search never touch the test split."""
    reporting: Mapping[str, Any] | None = None
    """Where validations are reported to, and what may prune the run (see `tuning.reporting`)."""
    rendezvous: Path | None = None
    plugins: tuple[Path, ...] = ()


def load_data(spec: RunSpec, root: Path) -> TaskData:
    """The data of a run. Raises `DataError` when it is missing, incomplete or corrupt."""
    dataset = get_dataset(spec.dataset)
    data = dataset(dataset.Config.parse(spec.data, where="data"), root).load(spec.task)
    if not len(data.train):
        raise DataError(
            f"{spec.dataset} has no training images: train on other data, then `subnetbench evaluate` on it"
        )
    return data


def execute(
    spec: RunSpec,
    results: Path,
    settings: RunSettings | None = None,
    *,
    should_prune: PruneDecision = lambda epochs_done, value: False,
) -> Ending:
    """Train, evaluate and record one run below `results`, or go on with one that was interrupted.

    Errors of the run end up in its failure file and in a record of status `failed`; only errors of the place
    itself (the folder cannot be written, the run is running elsewhere) are raised.
    """
    settings = settings or RunSettings()
    folder = RunFolder(results, spec.run_id)
    folder.create(spec.model_dump_json(indent=1))
    if folder.finished_file.exists():
        return "finished"
    is_main = int(os.environ.get("RANK", "0")) == 0
    with _locked(folder, is_main), _stop_requests() as stop_requested:
        folder.failure_file.unlink(missing_ok=True)
        attempt = _Attempt(spec, folder, settings, is_main)
        try:
            return attempt.run(stop_requested, should_prune)
        except Interrupted:
            return attempt.end("interrupted")
        except Pruned:
            return attempt.fail("pruned", "pruned by the study", ending="pruned")
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            return attempt.fail("out-of-memory", str(error) or "out of memory")
        except SubnetbenchError as error:
            return attempt.fail(getattr(error, "reason", "error"), str(error))
        except Exception as error:
            traceback.print_exc()
            return attempt.fail("error", f"{type(error).__name__}: {error}")
        finally:
            attempt.close()


class _Attempt:
    """One try at a run; writes its files and its record."""

    def __init__(self, spec: RunSpec, folder: RunFolder, settings: RunSettings, is_main: bool) -> None:
        self.spec, self.folder, self.settings, self.is_main = spec, folder, settings, is_main
        self.started = datetime.now(UTC)
        self.world: World | None = None
        self.data: TaskData | None = None
        self.method: Method[Any] | None = None
        self.monitor: Monitor | None = None
        self.last_validation: float | None = None

    def run(self, stop_requested: Callable[[], bool], should_prune: PruneDecision) -> Ending:
        spec, folder, settings = self.spec, self.folder, self.settings
        method_class = get_method(spec.method)
        self.method = method = method_class(method_class.Config.parse(spec.config))
        self.data = data = load_data(spec, settings.data_root)
        self.world = world = open_world(
            spec.compute,
            rendezvous=settings.rendezvous,
            trackers=list(settings.trackers) or None,
            folder=folder.path,
        )
        if settings.trackers:
            world.accelerator.init_trackers("trackers")
        if settings.reporting is not None and self.is_main:
            from subnetbench.harness.tuning.reporting import connect

            should_prune = connect(settings.reporting, axis=(method.budget(data), data.protocol, data.digest))

        def decide(epochs_done: int, value: float) -> bool:
            self.last_validation = value
            return should_prune(epochs_done, value)

        self.monitor = Monitor(world, folder, stop_requested=stop_requested, should_prune=decide)
        self.monitor.write(ended=None, phase="training", pid=os.getpid(), host=environment.host())
        context = Context(
            spec=spec,
            data=on_device(data, world.device),
            world=world,
            folder=folder,
            inputs=open_inputs(spec, folder.results, world),
            cache=folder.results / "cache",
            monitor=self.monitor,
        )
        if folder.model_file.exists():
            modules, facts = load_model(folder.model_file, method, context)
        else:
            modules = method.train(context)
            facts = {"train_seconds": context.train_seconds, "wall_seconds": self.monitor.seconds()}
            if self.is_main:
                save_model(folder.model_file, method, modules, context, facts)
                folder.last_checkpoint.unlink(missing_ok=True)
        self.monitor.write(phase="evaluating")
        modules.eval()
        scores = method.evaluate(modules, context, settings.split)
        scores += [Score(metric=name, value=value) for name, value in settings.search_cost.items()]
        if self.is_main:
            self._record("finished", scores, facts)
        return self.end("finished")

    def _record(
        self, status: Status, scores: Sequence[Score], facts: dict[str, Any], reason: str = "", error: str = ""
    ) -> None:
        path = record_run(
            self.spec,
            self.folder,
            status=status,
            scores=scores,
            started=self.started,
            seconds=facts.get("wall_seconds"),
            train_seconds=facts.get("train_seconds"),
            data=self.data,
            device=None if self.world is None else self.world.device,
            budget=self.method.budget(self.data) if self.method and self.data else "",
            reason=reason,
            error=error,
            sweep=self.settings.sweep,
            study=self.settings.study,
            trial=self.settings.trial,
            tuned=self.settings.tuned,
        )
        if status == "finished":
            write_json_text(self.folder.finished_file, to_json({"record": path.name, "time": time.time()}))

    def end(self, ending: Ending) -> Ending:
        """Say in the heartbeat file that this attempt is over."""
        if self.monitor is not None:
            self.monitor.write(ended=ending)
        return ending

    def fail(self, reason: str, message: str, *, ending: Ending = "failed") -> Ending:
        """Leave a failure file and a record; the first rank to fail says why."""
        print(f"{ending}: {message}", flush=True)
        try:
            if not self.folder.failure_file.exists():
                facts = {"reason": reason, "message": message, "time": time.time()}
                write_json_text(self.folder.failure_file, to_json(facts))
            if self.is_main and ending == "pruned":
                value = float("nan") if self.last_validation is None else self.last_validation
                partial = Score(metric=PRIMARY_METRIC[self.spec.task], value=value, split="validation")
                self._record("pruned", [partial] if math.isfinite(value) else (), {}, reason, message)
            elif self.is_main:
                self._record("failed", (), {}, reason, message)
        except OSError as error:
            print(f"the failure could not be written down: {error}", flush=True)
        return self.end(ending)

    def close(self) -> None:
        if self.world is not None:
            self.world.close()


class RunElsewhere(SubnetbenchError):
    """Another process is working on the run."""


@contextmanager
def _locked(folder: RunFolder, is_main: bool) -> Iterator[None]:
    """Held by rank 0 while it works on the run, so that two drivers never train the same run at once."""
    if not is_main:
        yield
        return
    with open(folder.lock_file, "w") as lock:
        if not locked_within(lock.fileno(), LOCK_PATIENCE_SECONDS):
            raise RunElsewhere(f"run {folder.run_id} is being worked on by another process")
        yield


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT and SIGUSR2 into a question that training asks between steps."""
    asked: list[int] = []
    previous = {}
    try:
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            previous[name] = signal.signal(name, lambda number, frame: asked.append(number))
    except ValueError:  # not the main thread: nobody sends signals here
        previous = {}
    try:
        yield lambda: bool(asked)
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
