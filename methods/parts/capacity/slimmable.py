"""Networks that run at several widths with one set of weights (slimmable networks, Yu et al. 2019; SwitchNet).

`SlimmableNetwork` converts any network of convolutions, linear layers, layer norms and batch norms in place. At width
w a layer uses its leading channels: rows up to its own channel count, columns up to what its input brings, so
shortcuts and attention fit without a description of the architecture. Counts depend on the full count and the width
alone, hence equal counts stay equal. Batch norms have parameters and statistics for each width, or share them.

A network that concatenates features of several layers runs, but a narrow width then reads other features than the
same columns do at full width.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.capacity.slimmable_layers import (
    BatchNorm,
    SlimmableBatchNorm,
    SlimmableLayer,
    SlimmableOwner,
    WidthSwitch,
    narrow_own,
    slim_layer,
)
from subnetbench.methods.parts.networks.modes import in_evaluation_mode

ChannelRule = Callable[[int, float], int]
Counts = Callable[[int], list[int]]


def truncated(channels: int, width: float) -> int:
    """int(channels * width), at least 1: the rule of ResNet and ResNeXt."""
    return max(1, int(channels * width))


def nearest_multiple(channels: int, width: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to channels * width, not below 90 % of it: the rule of MobileNetV2."""
    wanted = channels * width
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def mobilenet_v2_channels(channels: int, width: float) -> int:
    """`nearest_multiple`, but for the last convolution's 1280 channels, which are truncated."""
    return truncated(channels, width) if channels == 1280 else nearest_multiple(channels, width)


class SlimmableNetwork(nn.Module):
    """`network`, converted in place, at any of `widths`; called without a width, it runs at the largest.

    `example` is any input batch; the network is run with it once at each width, in evaluation mode.
    `channels` gives a layer's channel count from its full one and the width; counts of grouped convolutions stay
    multiples of the group width, and those inside attention of the number of heads. Layers named in `full_outputs`
    have all their outputs at every width, those in `unchanged` are not touched (names of modules, with all that they
    contain). With `shared_norms` batch norms are one for all widths, and then parameters and buffers do not depend on
    `widths`: what was trained with some can be loaded into a network of others.

    Raises:
        UserError: For a layer that cannot be narrowed.
    """

    def __init__(
        self,
        network: nn.Module,
        widths: Sequence[float],
        example: Tensor,
        *,
        channels: ChannelRule = truncated,
        full_outputs: Collection[str] = (),
        unchanged: Collection[str] = (),
        shared_norms: bool = False,
    ) -> None:
        super().__init__()
        self.switch = WidthSwitch(widths)
        self.network = network
        known = dict(network.named_modules())
        for name in (*full_outputs, *unchanged):
            if name not in known:
                raise UserError("the network has no such module", field="full_outputs or unchanged", value=name)
        units = _channel_units(network)

        def counts(full: int) -> list[int]:
            unit = units.get(full, 1)
            return [min(full, unit * channels(full // unit, width)) for width in self.switch.widths]

        normalised = {_channels(module) for module in network.modules() if isinstance(module, BatchNorm | nn.LayerNorm)}
        for name, module in known.items():
            if _inside(name, unchanged):
                continue
            outputs = _channels(module)
            if isinstance(module, BatchNorm) and outputs is not None:
                sizes = [outputs] * len(widths) if _inside(name, full_outputs) else counts(outputs)
                if shared_norms:
                    slim_layer(module, sizes, self.switch)
                else:
                    _replace(network, name, SlimmableBatchNorm(module, sizes, self.switch))
            elif isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm) and outputs is not None:
                fused = isinstance(module, nn.Linear) and name.rpartition(".")[2] == "qkv"
                full = outputs // 3 if fused else outputs
                sizes = [full] * len(widths) if _inside(name, full_outputs) else counts(full)
                slim_layer(module, sizes, self.switch, parts=3 if fused else 1)
            else:
                _narrow_rest(name, module, counts, normalised, self.switch)
        self._meet(example)

    @contextmanager
    def at(self, index: int) -> Iterator[None]:
        """Inside, the network runs at `widths[index]`."""
        before, self.switch.index = self.switch.index, range(len(self.switch.widths))[index]
        try:
            yield
        finally:
            self.switch.index = before

    def forward(self, *inputs: Any, width: int | None = None) -> Any:
        """The network's output at `widths[width]`."""
        with self.at(self.switch.index if width is None else width):
            return self.network(*inputs)

    @torch.no_grad()
    def plain(self, index: int) -> nn.Module:
        """A copy at one width with ordinary layers and no weights beyond it."""
        index = range(len(self.switch.widths))[index]
        other = copy.deepcopy(self)
        for name, module in list(other.network.named_modules()):
            if isinstance(module, SlimmableLayer | SlimmableOwner):
                module.settle(index)
            elif isinstance(module, SlimmableBatchNorm):
                _replace(other.network, name, module.bn[index])
        return other.network

    @torch.no_grad()
    def _meet(self, example: Tensor) -> None:
        """Run once at every width, so that the layers know their inputs."""
        with in_evaluation_mode(self):
            for index in range(len(self.switch.widths)):
                self(example, width=index)


def _narrow_rest(
    name: str, module: nn.Module, counts: Counts, normalised: Collection[int | None], switch: WidthSwitch
) -> None:
    """What is not a layer of its own: numbers of attention layers, class tokens, position embeddings, scales."""
    own = {key: value.shape[-1] for key, value in module.named_parameters(recurse=False) if value.numel() > 1}
    if own and type(module).__module__.startswith("torch.nn."):
        kind = type(module).__name__
        raise UserError("a layer that cannot be narrowed", field=name or "network", value=kind)
    # Vectors of a width that the network normalises; tables of other sizes (biases by head) stay whole.
    sizes = {key: counts(size) for key, size in own.items() if size in normalised}
    shape = _attention(module)
    narrow_own(module, sizes, counts(shape[1]) if shape else (), switch)


def _attention(module: nn.Module) -> tuple[int, int] | None:
    """(heads, channels of all heads) of an attention layer with one projection for query, key and value."""
    projection, heads = getattr(module, "qkv", None), getattr(module, "num_heads", None)
    if isinstance(projection, nn.Linear) and isinstance(heads, int):
        return heads, projection.out_features // 3
    return None


def _channel_units(network: nn.Module) -> dict[int, int]:
    """Full channel counts whose narrower counts must be multiples of more than 1."""
    units: dict[int, int] = {}

    def demand(channels: int, unit: int) -> None:
        units[channels] = math.lcm(units.get(channels, 1), unit)

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups < module.in_channels:
            demand(module.in_channels, module.in_channels // module.groups)
            demand(module.out_channels, module.out_channels // module.groups)
        elif (shape := _attention(module)) is not None:
            demand(shape[1], shape[0])
    return units


def _channels(module: nn.Module) -> int | None:
    """The full number of output channels of a layer; None for anything else."""
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0] if len(module.normalized_shape) == 1 else None
    return module.num_features if isinstance(module, BatchNorm) else None


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    path, _, last = name.rpartition(".")
    network.get_submodule(path)._modules[last] = module


def _inside(name: str, chosen: Collection[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in chosen)
