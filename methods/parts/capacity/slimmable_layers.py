"""Layers of a network that runs at several widths; `slimmable.SlimmableNetwork` makes a network of them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError

BatchNorm = nn.modules.batchnorm._BatchNorm
Setting = int | tuple[int | None, ...]


class WidthSwitch:
    """Which of `widths` a network runs at; its layers share one switch and read it in their forward pass."""

    def __init__(self, widths: Sequence[float]) -> None:
        if not widths or not all(0 < width <= 1 for width in widths):
            raise UserError("not shares of the channels", field="widths", value=list(widths), allowed="> 0, <= 1")
        self.widths = tuple(widths)
        self.index = max(range(len(widths)), key=lambda i: widths[i])


class SlimmableLayer(nn.Module):
    """Mixed into a layer's own class: its forward pass runs with the parameters cut to the present width.

    `outputs` are its channel counts, one a width. Those of its inputs are what the inputs bring when the network is
    first run at each width; from then on they are fixed.
    """

    plain_kind: Any
    switch: WidthSwitch
    outputs: Sequence[int]
    inputs: list[int | None]
    parts: int

    def region(self, name: str, tensor: Tensor, index: int) -> Tensor:
        """A view of what width `index` uses of a tensor like the parameter `name`; of such a part, all of it."""
        raise NotImplementedError

    def part(self, name: str, tensor: Tensor, index: int) -> Tensor:
        """The region as a parameter of the layer."""
        return self.region(name, tensor, index)

    def settings(self, index: int) -> dict[str, Setting]:
        """Attributes of the layer that differ at width `index`."""
        return {}

    def meet(self, x: Tensor) -> None:
        """Note how many channels the input has at the present width."""
        raise NotImplementedError

    def narrow(self, index: int) -> dict[str, Tensor | Setting]:
        """The parameters and settings at width `index`, by name."""
        present = {name: value for name, value in self._parameters.items() if value is not None}
        parts = {name: self.part(name, value, index) for name, value in present.items()}
        return {**parts, **self.settings(index)}

    def forward(self, x: Tensor) -> Tensor:
        index = self.switch.index
        if self.inputs[index] is None:
            self.meet(x)
        before = {}
        try:
            for name, value in self.narrow(index).items():
                before[name] = getattr(self, name)
                self._put(name, value)
            result: Tensor = super().forward(x)
            return result
        finally:
            for name, value in before.items():
                self._put(name, value)

    def settle(self, index: int) -> None:
        """Become an ordinary layer at one width."""
        for name, value in self.narrow(index).items():
            self._put(name, nn.Parameter(value.detach().clone()) if isinstance(value, Tensor) else value)
        self.__class__ = self.plain_kind
        for name in ("switch", "outputs", "inputs", "parts"):
            del self.__dict__[name]

    def _put(self, name: str, value: Any) -> None:
        # As functional_call does: a plain tensor stands in for the registered parameter.
        if name in self._parameters:
            self._parameters[name] = value
        else:
            setattr(self, name, value)


class _SlimmableConv2d(SlimmableLayer, nn.Conv2d):
    def meet(self, x: Tensor) -> None:
        self.inputs[self.switch.index] = x.shape[1]

    def region(self, name: str, tensor: Tensor, index: int) -> Tensor:
        inputs = self.inputs[index]
        if self.groups == 1:
            rows = _leading(tensor, 0, self.outputs[index])
            return _leading(rows, 1, inputs) if name == "weight" else rows
        # Groups keep their size and drop out as a whole.
        return _leading(tensor, 0, None if inputs is None else inputs * self.out_channels // self.in_channels)

    def settings(self, index: int) -> dict[str, Setting]:
        inputs = self.inputs[index]
        return {} if self.groups == 1 or inputs is None else {"groups": inputs * self.groups // self.in_channels}

    def settle(self, index: int) -> None:
        super().settle(index)
        self.in_channels, self.out_channels = self.weight.shape[1] * self.groups, self.weight.shape[0]


class _SlimmableLinear(SlimmableLayer, nn.Linear):
    def meet(self, x: Tensor) -> None:
        self.inputs[self.switch.index] = x.shape[-1]

    def region(self, name: str, tensor: Tensor, index: int) -> Tensor:
        """Of `parts` stacked matrices (query, key, value) the leading rows of each."""
        stacked = _leading(torch.unflatten(tensor, 0, (self.parts, -1)), 1, self.outputs[index])
        return _leading(stacked, 2, self.inputs[index]) if name == "weight" else stacked

    def part(self, name: str, tensor: Tensor, index: int) -> Tensor:
        return self.region(name, tensor, index).flatten(0, 1)

    def settle(self, index: int) -> None:
        super().settle(index)
        self.out_features, self.in_features = self.weight.shape


class _SlimmableLayerNorm(SlimmableLayer, nn.LayerNorm):
    def meet(self, x: Tensor) -> None:
        # timm's LayerNorm2d has its channels second.
        self.inputs[self.switch.index] = x.shape[1 if "2d" in type(self).__name__ else -1]

    def region(self, name: str, tensor: Tensor, index: int) -> Tensor:
        return _leading(tensor, 0, self.inputs[index])

    def settings(self, index: int) -> dict[str, Setting]:
        return {"normalized_shape": (self.inputs[index],)}


class _SharedBatchNorm(SlimmableLayer, BatchNorm):
    """One set of scales, shifts and statistics for all widths: each reads the leading entries.

    Training moves the statistics at the largest width alone; those of other widths have to be collected.
    """

    def meet(self, x: Tensor) -> None:
        self.inputs[self.switch.index] = x.shape[1]

    def region(self, name: str, tensor: Tensor, index: int) -> Tensor:
        return _leading(tensor, 0, self.inputs[index])

    def forward(self, x: Tensor) -> Tensor:
        widths = self.switch.widths
        mean, variance, tracks = self.running_mean, self.running_var, self.track_running_stats
        if mean is None or variance is None or widths[self.switch.index] == max(widths):
            return super().forward(x)
        self.running_mean, self.running_var = (_leading(each, 0, x.shape[1]) for each in (mean, variance))
        self.track_running_stats = not self.training
        try:
            return super().forward(x)
        finally:
            self.running_mean, self.running_var, self.track_running_stats = mean, variance, tracks

    def settle(self, index: int) -> None:
        super().settle(index)
        self.num_features = len(self.weight) if self.affine else self.num_features
        for name in ("running_mean", "running_var"):
            if (buffer := getattr(self, name)) is not None:
                setattr(self, name, buffer[: self.num_features].clone())


_MIXINS: dict[type[nn.Module], type[SlimmableLayer]] = {
    nn.Conv2d: _SlimmableConv2d,
    nn.Linear: _SlimmableLinear,
    nn.LayerNorm: _SlimmableLayerNorm,
    BatchNorm: _SharedBatchNorm,
}


def slim_layer(layer: nn.Module, outputs: Sequence[int], switch: WidthSwitch, *, parts: int = 1) -> None:
    """Make a convolution, linear layer or norm, also of a derived class, width-switchable in place.

    `outputs` are its channel counts, one a width; with `parts` those of each of as many stacked matrices.
    """
    slim: Any = layer
    slim.__class__ = _slimmable_class(slim.__class__)
    slim.switch, slim.outputs, slim.parts = switch, tuple(outputs), parts
    slim.inputs = [None] * len(slim.outputs)


class SlimmableBatchNorm(nn.Module):
    """A batch norm of its own for each width, all starting as the leading channels of `layer`."""

    def __init__(self, layer: BatchNorm, sizes: Sequence[int], switch: WidthSwitch) -> None:
        super().__init__()
        self.switch = switch
        self.bn = nn.ModuleList(_leading_channels(layer, size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn[self.switch.index](x)
        return result


class SlimmableOwner(nn.Module):
    """Mixed into the class of a module with tokens, scales or head widths of its own: reading one gives its part."""

    plain_kind: Any
    switch: WidthSwitch
    sizes: dict[str, Sequence[int]]

    def settle(self, index: int) -> None:
        """Become an ordinary module at one width."""
        self.switch.index = index
        present = {name: getattr(self, name) for name in self.sizes}
        self.__class__ = self.plain_kind
        for name, value in present.items():
            if name in self._parameters:
                self._parameters[name] = nn.Parameter(value.detach().clone())
            else:
                setattr(self, name, value)
        for name in ("switch", "sizes"):
            del self.__dict__[name]


def _leading_entries(name: str) -> Any:
    def read(module: SlimmableOwner) -> Tensor | None:
        parameter = module._parameters[name]
        return None if parameter is None else parameter[..., : module.sizes[name][module.switch.index]]

    return property(read)


_HEAD_NUMBERS: dict[str, Callable[[int, int], float]] = {
    "head_dim": lambda size, heads: size // heads,
    "attn_dim": lambda size, heads: size,
    "scale": lambda size, heads: (size // heads) ** -0.5,
}


def _head_number(name: str) -> Any:
    def read(module: Any) -> float:
        return _HEAD_NUMBERS[name](module.sizes[name][module.switch.index], module.num_heads)

    return property(read)


@cache
def _owner_class(kind: Any, parameters: tuple[str, ...], numbers: tuple[str, ...]) -> type[nn.Module]:
    readers = {**{n: _leading_entries(n) for n in parameters}, **{n: _head_number(n) for n in numbers}}
    return type(f"Slimmable{kind.__name__}", (SlimmableOwner, kind), {**readers, "plain_kind": kind})


@cache
def _slimmable_class(kind: Any) -> type[nn.Module]:
    mixin = next(mixin for base, mixin in _MIXINS.items() if issubclass(kind, base))
    return type(f"Slimmable{kind.__name__}", (mixin, kind), {"plain_kind": kind})


def narrow_own(
    module: nn.Module, parameters: Mapping[str, Sequence[int]], heads: Sequence[int], switch: WidthSwitch
) -> None:
    """Let a module, in place, read the leading entries of its own `parameters` (sizes by name, one a width).

    `heads` are the channels of all heads of an attention layer, one a width, or empty; what such a layer notes about
    the width of a head then follows the switch too.
    """
    numbers = tuple(key for key in _HEAD_NUMBERS if heads and key in vars(module))
    if not parameters and not numbers:
        return
    owner: Any = module
    owner.__class__ = _owner_class(owner.__class__, tuple(parameters), numbers)
    owner.switch, owner.sizes = switch, {**parameters, **dict.fromkeys(numbers, heads)}


def _leading_channels(layer: BatchNorm, size: int) -> nn.Module:
    narrow = copy.deepcopy(layer)
    narrow.num_features = size
    for key, parameter in layer.named_parameters(recurse=False):
        setattr(narrow, key, nn.Parameter(parameter.detach()[:size].clone()))
    for key, buffer in layer.named_buffers(recurse=False):
        setattr(narrow, key, buffer[:size].clone() if buffer.dim() else buffer.clone())
    return narrow


def _leading(tensor: Tensor, axis: int, size: int | None) -> Tensor:
    """The first `size` entries along an axis."""
    # Slicing off nothing would cost two passes over the gradient.
    return tensor if size is None or tensor.shape[axis] == size else tensor.narrow(axis, 0, size)
