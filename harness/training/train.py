"""Training a method in a context: by gradient steps, or by what it calibrates; or taking it from a file as it is."""

import time
from dataclasses import dataclass
from typing import Any

from torch import nn

from subnetbench.harness.method.base import Method, TrainableMethod
from subnetbench.harness.method.context import Context
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.training.loop import TrainingLoop
from subnetbench.harness.training.monitor import Monitor
from subnetbench.harness.training.spending import Spending, SpendingCounter
from subnetbench.harness.training.starting import imported_modules, is_imported


@dataclass(frozen=True)
class Trained:
    """The modules of a finished training, the seconds of all attempts that went into it, and what else was spent."""

    modules: nn.ModuleDict
    train_seconds: float
    spending: Spending


def train(
    method: Method[Any], context: Context, *, monitor: Monitor | None = None, folder: RunFolder | None = None
) -> Trained:
    """Train a method, or resume from the last checkpoint in `folder`.

    Args:
        method: A new instance; its `state` is filled in.
        context: The run's data, processes and inputs.
        monitor: Receives heartbeats and metrics, and asks for an early end; None: nobody watches.
        folder: Where checkpoints are kept; None: none are written.

    Raises:
        Interrupted: After a stop request; a checkpoint was written.
        Pruned: When the monitor's tuner says so.
        RunFailure: When the training loss is not finite.
    """
    if is_imported(method):
        began, counter = time.monotonic(), SpendingCounter(context.world)
        with counter.work():
            modules = imported_modules(method, context)
        return Trained(modules, time.monotonic() - began, counter.total())
    if isinstance(method, TrainableMethod):
        loop = TrainingLoop(method, context, monitor=monitor, folder=folder)
        return Trained(loop.run(), loop.train_seconds, loop.spending.total())
    began, counter = time.monotonic(), SpendingCounter(context.world)
    modules = method.rebuild(context).to(context.device)
    with counter.work():
        method.calibrate(modules, context)
    return Trained(modules, time.monotonic() - began, counter.total())
