"""Running statistics of batch norm: who may update them, and recalibration for one capacity at a time.

Subnetworks of one network share the affine parameters of its batch norms, but each needs statistics of its own when
it is evaluated. They are collected by `recalibrate`, kept as plain dictionaries, and saved with the model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.networks.modes import in_evaluation_mode

Statistics = dict[str, Tensor]
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def batch_norms(network: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The batch-norm layers of `network` that keep running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    }


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, layers in training mode normalise with the batch and leave the running statistics alone."""
    layers = [layer for layer in batch_norms(network).values() if layer.training]
    tracking = [layer.track_running_stats for layer in layers]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer, before in zip(layers, tracking, strict=True):
            layer.track_running_stats = before


@contextmanager
def running_momentum(network: nn.Module, momentum: float | None) -> Iterator[None]:
    """Inside, the running statistics move by `momentum` a batch, or are cumulative means with None.

    Two updates by the same batch at momentum m equal one at 1 - (1 - m)^2: 0.19 for the usual 0.1.
    """
    layers = list(batch_norms(network).values())
    before = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = momentum
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.momentum = value


def freeze_batch_norms(network: nn.Module) -> None:
    """Put all batch norms in evaluation mode; call it again after `network.train()`."""
    for layer in batch_norms(network).values():
        layer.eval()


def running_statistics(network: nn.Module) -> Statistics:
    """Copies of the running statistics, by buffer name."""
    return {
        f"{name}.{buffer}" if name else buffer: getattr(layer, buffer).clone()
        for name, layer in batch_norms(network).items()
        for buffer in _BUFFERS
    }


@torch.no_grad()
def load_running_statistics(network: nn.Module, statistics: Mapping[str, Tensor]) -> None:
    """Replace the network's own statistics by `statistics`.

    Raises:
        UserError: Unless names and shapes agree.
    """
    present = {
        f"{name}.{buffer}" if name else buffer: getattr(layer, buffer)
        for name, layer in batch_norms(network).items()
        for buffer in _BUFFERS
    }
    if different := sorted(present.keys() ^ statistics.keys()):
        raise UserError("statistics of another network", field="batch norm", value=different[0])
    for name, buffer in present.items():
        if buffer.shape != statistics[name].shape:
            raise UserError("statistics of another width", field=name, value=tuple(statistics[name].shape))
        buffer.copy_(statistics[name])


@torch.no_grad()
def recalibrate(
    network: nn.Module,
    batches: Iterable[Tensor],
    *,
    forward: Callable[[Tensor], object] | None = None,
    momentum: float | None = None,
) -> Statistics:
    """Start the running statistics anew, run `batches` through, and return copies of them.

    Only batch norm is in training mode meanwhile (no dropout), and all modes are restored.

    Args:
        network: Its statistics are replaced.
        batches: Inputs of the network.
        forward: Runs a batch if the network is not to be called itself, e.g. with other weights by `functional_call`.
        momentum: None: means over the batches. The published evaluation uses 0.1, an exponential average in which the
            last 20 to 30 batches dominate.

    Raises:
        UserError: Without a batch.
    """
    layers = batch_norms(network).values()
    run = network if forward is None else forward
    count = 0
    with in_evaluation_mode(network), running_momentum(network, momentum):
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        for batch in batches:
            run(batch)
            count += 1
    if layers and not count:
        raise UserError("no images to recalibrate batch norm with", field="batches", value=0, allowed=">= 1 batch")
    return running_statistics(network)
