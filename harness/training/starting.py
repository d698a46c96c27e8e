"""The beginning of a training: fresh modules, or modules with the weights of another program in them."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from subnetbench.harness.core.rng import seed_global_torch
from subnetbench.harness.method.base import Method, TrainableMethod
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.starting import WeightsConfig
from subnetbench.harness.method.weights import read_weights

_log = logging.getLogger(__name__)


def is_imported(method: Method[Any]) -> bool:
    """Whether the run is a file of another program, which nothing here trains."""
    return isinstance(method.config, WeightsConfig) and method.config.imported


def start_from_file(method: Method[Any], modules: nn.ModuleDict, context: Context) -> None:
    """Put the weights that the config names, if any, into fresh modules.

    Raises:
        UserError: They do not fit.
    """
    if isinstance(method.config, WeightsConfig) and method.config.weights is not None:
        weights = read_weights(Path(method.config.weights).expanduser())
        if weights.unread:
            _log.warning("%s: not read: %s", weights.path.name, ", ".join(weights.unread))
        method.load_weights(modules, weights, context)


def imported_modules(method: Method[Any], context: Context) -> nn.ModuleDict:
    """The modules of a run that a file is: no stage runs, but what ends a training does, as batch-norm recalibration.

    Raises:
        UserError: The file does not fit.
    """
    seed_global_torch(context.seed, "init")
    modules = method.rebuild(context).to(context.device)
    start_from_file(method, modules, context)
    if isinstance(method, TrainableMethod):
        method.finish(modules, context)
    return modules
