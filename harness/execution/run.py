"""One run, from spec to record: the function that every launcher calls in every process of the run."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from subnetbench.harness.core import environment
from subnetbench.harness.core.errors import DataError, SubnetbenchError
from subnetbench.harness.core.files import LockHeld, file_lock
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.data.described import Contents, describe
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.data.splits import TaskData, on_device
from subnetbench.harness.distributed.world import World, open_world
from subnetbench.harness.evaluation.variant import Variant
from subnetbench.harness.execution.continuing import begun_on, check_files, check_inputs, continued
from subnetbench.harness.execution.gathering import gather, stores, with_installed, write_items
from subnetbench.harness.execution.recording import adopt, finish, record_run
from subnetbench.harness.execution.scoring import final_scores
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.signals import stop_requests
from subnetbench.harness.execution.trackers import tracked
from subnetbench.harness.method.base import Method
from subnetbench.harness.method.context import Context, Inputs
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.records import Score, Status
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Ledger
from subnetbench.harness.runs.state import Failure, RunStatus
from subnetbench.harness.training.accounts import ledger_of
from subnetbench.harness.training.monitor import Interrupted, Monitor, Pruned, PruneDecision
from subnetbench.harness.training.train import train
from subnetbench.harness.training.trained_run import TrainingTimes, load_model, open_inputs, save_model

# The processes of a driver that was killed need a moment to write their checkpoints and go.
LOCK_PATIENCE_SECONDS = 20.0

_log = logging.getLogger(__name__)


def load_data(spec: RunSpec, root: Path) -> TaskData:
    """The data of a run. Raises `DataError` when they are missing, incomplete, corrupt or less than the method needs."""
    dataset, method = get_dataset(spec.dataset), get_method(spec.method)
    data = dataset(dataset.Config.parse(spec.data, where="data"), root).load(spec.task)
    for split in method(method.Config.parse(spec.config)).needs():
        if not len(data.split(split)):
            of_split = "training" if split == "train" else split
            remedy = "train on other data, then `subnetbench evaluate` on it"
            raise DataError(f"{spec.dataset} has no {of_split} images, which {spec.method} needs: {remedy}")
    return data


def execute(
    spec: RunSpec,
    results: Path,
    settings: RunSettings | None = None,
    *,
    should_prune: PruneDecision = lambda epochs_done, value: False,
) -> RunStatus:
    """Train, evaluate and record one run below `results`, or resume one that was interrupted.

    Errors of the run end up in its failure file and in a record of status `failed`.

    Raises:
        UserError: the results folder cannot be written.
        RunElsewhere: another process is working on the run.
    """
    settings = settings or RunSettings()
    folder = RunFolder(results, spec.run_id)
    folder.create(spec.model_dump_json(indent=1))
    if folder.finished_file.exists():
        return "finished"
    is_main = int(os.environ.get("RANK", "0")) == 0
    with _locked(folder, is_main), stop_requests() as stop_requested:
        if is_main and _finished_meanwhile(spec, folder):
            return "finished"
        folder.failure_file.unlink(missing_ok=True)
        attempt = _Attempt(spec, folder, settings, is_main)
        try:
            return attempt.run(stop_requested, should_prune)
        except Interrupted:
            return attempt.end("interrupted")
        except Pruned:
            return attempt.fail("pruned", "pruned by the study")
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            return attempt.fail("out-of-memory", str(error) or "out of memory")
        except SubnetbenchError as error:
            return attempt.fail(getattr(error, "reason", "error"), str(error))
        except Exception as error:
            _log.exception("the run failed")
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
        self.provenance: Provenance | None = None
        self.last_validation: float | None = None
        self.ledger: Ledger | None = None

    def run(self, stop_requested: Callable[[], bool], should_prune: PruneDecision) -> RunStatus:
        """Train, evaluate, record."""
        spec, folder, settings = self.spec, self.folder, self.settings
        method_class = get_method(spec.method)
        self.method = method = method_class(method_class.Config.parse(spec.config))
        described = describe(load_data(spec, settings.data_root), stores(settings.data_root, folder.results))
        self.data = data = described.data
        self.world = world = self._open_world()
        inputs = open_inputs(spec, folder.results, world)
        self.provenance = self._standing(described.contents, inputs)
        if settings.callback is not None and self.is_main:
            axis = (method.budget(data), data.protocol, data.digest)
            should_prune = settings.callback.load()(settings.callback.options, axis=axis)

        def decide(epochs_done: int, value: float) -> bool:
            self.last_validation = value
            return should_prune(epochs_done, value)

        self.monitor = Monitor(world, folder, stop_requested=stop_requested, should_prune=decide)
        self.monitor.write(ended=None, phase="training", pid=os.getpid(), host=environment.host())
        context = Context(
            spec=spec,
            data=on_device(data, world.device),
            world=world,
            inputs=inputs,
            cache=folder.results / "cache",
            scratch=folder.path,
        )
        modules, times, ledger = self._trained_modules(method, context, self.monitor)
        self.monitor.write(phase="evaluating")
        modules.eval()
        scores = final_scores(method, modules, context, settings.split)
        scores += [Score(metric=name, value=value) for name, value in settings.search_cost.items()]
        ledger = ledger.evaluated(_origins(method.variants(modules, context)))
        if self.is_main:
            path = self._record("finished", scores, times=times, ledger=ledger)
            finish(folder, path.name)
        return self.end("finished")

    def _standing(self, contents: Contents, inputs: Inputs) -> Provenance:
        """What the run stands on, written down; what was begun on something else is not continued."""
        spec, folder, world = self.spec, self.folder, self.world
        assert world is not None
        now = gather(spec, contents, world, inputs, self.settings.data_root)
        check_files(spec, now.files.files if now.files else {})
        check_inputs(spec, inputs, contents, folder.results)
        before = begun_on(folder)
        if before is not None:
            now = continued(before, now, contents, folder.results, self.settings.code_changes)
        if self.is_main:
            write_items(contents, folder.results)
            folder.write_provenance(now)
        world.barrier()
        return now

    def _open_world(self) -> World:
        trackers = list(self.settings.trackers) or None
        world = open_world(
            self.spec.compute, rendezvous=self.settings.rendezvous, trackers=trackers, folder=self.folder.path
        )
        if trackers:
            world.start_trackers(tracked(self.spec, self.settings, self.folder))
        return world

    def _trained_modules(
        self, method: Method[Any], context: Context, monitor: Monitor
    ) -> tuple[nn.ModuleDict, TrainingTimes, Ledger]:
        """The trained modules, and what was spent on them; from the model file where training is over."""
        if self.folder.model_file.exists():
            return load_model(self.folder.model_file, method, context)
        try:
            trained = train(method, context, monitor=monitor, folder=self.folder)
        except Pruned as pruned:
            self.ledger = ledger_of(pruned.spending, pruned.train_seconds, method, context)
            raise
        times = TrainingTimes(trained.train_seconds, monitor.seconds())
        ledger = ledger_of(trained.spending, trained.train_seconds, method, context)
        if self.is_main:
            self.provenance = with_installed(self.provenance or Provenance(), method)
            self.folder.write_provenance(self.provenance)
            save_model(self.folder.model_file, method, trained.modules, context, times, ledger, self.provenance)
            self.folder.last_checkpoint.unlink(missing_ok=True)
        return trained.modules, times, ledger

    def _record(
        self,
        status: Status,
        scores: Sequence[Score],
        *,
        times: TrainingTimes | None = None,
        ledger: Ledger | None = None,
        failure: Failure | None = None,
    ) -> Path:
        return record_run(
            self.spec,
            self.folder,
            settings=self.settings,
            status=status,
            scores=scores,
            started=self.started,
            seconds=None if times is None else times.wall_seconds,
            train_seconds=None if times is None else times.train_seconds,
            ledger=ledger or self.ledger,
            data=self.data,
            device=None if self.world is None else self.world.device,
            budget=self.method.budget(self.data) if self.method and self.data else "",
            provenance=self.provenance,
            failure=failure,
        )

    def end(self, status: RunStatus) -> RunStatus:
        """Say in the heartbeat file that this attempt is over."""
        if self.monitor is not None:
            self.monitor.write(ended=status)
        return status

    def fail(self, reason: str, message: str) -> RunStatus:
        """Leave a failure file and a record; the first rank to fail says why."""
        status: Literal["failed", "pruned"] = "pruned" if reason == "pruned" else "failed"
        failure = Failure(reason, message)
        _log.error("%s: %s", status, message)
        try:
            if not self.folder.failure_file.exists():
                self.folder.write_failure(failure)
            if self.is_main:
                self._record(status, self._partial_scores() if status == "pruned" else (), failure=failure)
        except OSError as error:
            _log.error("the failure could not be written down: %s", error)
        return self.end(status)

    def _partial_scores(self) -> Sequence[Score]:
        """The last validation, where there was one."""
        value = self.last_validation
        if value is None or not math.isfinite(value):
            return ()
        return [Score(metric=PRIMARY_METRIC[self.spec.task], value=value, split="validation")]

    def close(self) -> None:
        """Leave the world, if it was entered."""
        if self.world is not None:
            self.world.close()


def _origins(variants: Iterable[Variant]) -> dict[str, str]:
    """The variants that are networks of inputs, with the ids of these runs."""
    return {variant.name: variant.origin.run_id for variant in variants if variant.origin is not None}


def _finished_meanwhile(spec: RunSpec, folder: RunFolder) -> bool:
    """Whether, seen under its lock, a run has nothing left to do: another process had it, or one died after recording.

    Raises:
        RunElsewhere: so it is, and there are other ranks: they must not wait for this one.
    """
    if not folder.finished_file.exists() and not adopt(folder):
        return False
    if spec.compute.processes > 1:
        raise RunElsewhere(f"run {folder.run_id} was finished by another process")
    return True


class RunElsewhere(SubnetbenchError):
    """Another process is working on the run."""


@contextmanager
def _locked(folder: RunFolder, is_main: bool) -> Iterator[None]:
    """Held by rank 0 while it works on the run, so that two drivers never train the same run at once."""
    if not is_main:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(folder.lock_file, LOCK_PATIENCE_SECONDS))
        except LockHeld:
            raise RunElsewhere(f"run {folder.run_id} is being worked on by another process") from None
        yield
