"""Layers of a network that runs at several widths; `slimmable.SlimmableNetwork` makes a network of them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor, nn

from subnetbench.harness.errors import UserError

BatchNorm = nn.modules.batchnorm._BatchNorm


class WidthSwitch:
    """Which of `widths` a network runs at; its layers share one switch and read it in their forward pass."""

    def __init__(self, widths: Sequence[float]) -> None:
        if not widths or not all(0 < width <= 1 for width in widths):
            raise UserError("not shares of the channels", field="widths", value=list(widths), allowed="> 0, <= 1")
        self.widths = tuple(widths)
        self.index = max(range(len(widths)), key=lambda i: widths[i])


class SlimmableLayer(nn.Module):
    """Mixed into a layer's own class: its forward pass runs with the parameters cut to the present width."""

    plain_kind: Any
    switch: WidthSwitch
    outputs: Sequence[int]
    parts: int

    def narrow(self, x: Tensor) -> dict[str, Any]:
        """The parameters and settings of this layer for the input `x` at the present width."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        before = {}
        try:
            for name, value in self.narrow(x).items():
                before[name] = getattr(self, name)
                self._put(name, value)
            return super().forward(x)
        finally:
            for name, value in before.items():
                self._put(name, value)

    def settle(self, narrowed: dict[str, Any]) -> None:
        """Become an ordinary layer with these parameters and settings."""
        for name, value in narrowed.items():
            self._put(name, nn.Parameter(value.detach().clone()) if isinstance(value, Tensor) else value)
        self.__class__ = self.plain_kind
        for name in ("switch", "outputs", "parts"):
            del self.__dict__[name]

    def _put(self, name: str, value: Any) -> None:
        # As functional_call does: a plain tensor stands in for the registered parameter.
        if name in self._parameters:
            self._parameters[name] = value
        else:
            setattr(self, name, value)

    def _count(self) -> int:
        return self.outputs[self.switch.index]


class _SlimmableConv2d(SlimmableLayer, nn.Conv2d):
    def narrow(self, x: Tensor) -> dict[str, Any]:
        columns = self.weight.shape[1]
        if self.groups == 1:
            return _without_none(weight=self.weight[: self._count(), : x.shape[1]], bias=self._bias(self._count()))
        # Groups keep their size and drop out as a whole.
        groups = x.shape[1] // columns
        rows = groups * (self.weight.shape[0] // self.groups)
        return _without_none(weight=self.weight[:rows], bias=self._bias(rows), groups=groups)

    def settle(self, narrowed: dict[str, Any]) -> None:
        super().settle(narrowed)
        self.in_channels, self.out_channels = self.weight.shape[1] * self.groups, self.weight.shape[0]

    def _bias(self, rows: int) -> Tensor | None:
        return None if self.bias is None else self.bias[:rows]


class _SlimmableLinear(SlimmableLayer, nn.Linear):
    def narrow(self, x: Tensor) -> dict[str, Any]:
        """Of `parts` stacked matrices (query, key, value) the leading rows of each."""
        rows = self._count()
        weight = self.weight.unflatten(0, (self.parts, -1))[:, :rows, : x.shape[-1]].flatten(0, 1)
        bias = None if self.bias is None else self.bias.unflatten(0, (self.parts, -1))[:, :rows].flatten()
        return _without_none(weight=weight, bias=bias)

    def settle(self, narrowed: dict[str, Any]) -> None:
        super().settle(narrowed)
        self.out_features, self.in_features = self.weight.shape


class _SlimmableLayerNorm(SlimmableLayer, nn.LayerNorm):
    def narrow(self, x: Tensor) -> dict[str, Any]:
        # timm's LayerNorm2d has its channels second.
        size = x.shape[1 if "2d" in type(self).__name__ else -1]
        cut = {name: value[:size] for name, value in self._parameters.items() if value is not None}
        return {**cut, "normalized_shape": (size,)}


_MIXINS: dict[type[nn.Module], type[SlimmableLayer]] = {
    nn.Conv2d: _SlimmableConv2d,
    nn.Linear: _SlimmableLinear,
    nn.LayerNorm: _SlimmableLayerNorm,
}


def slim_layer(layer: nn.Module, outputs: Sequence[int], switch: WidthSwitch, *, parts: int = 1) -> None:
    """Make a convolution, linear layer or layer norm, also of a derived class, width-switchable in place.

    `outputs` are its channel counts, one a width; with `parts` those of each of as many stacked matrices.
    """
    slim: Any = layer
    slim.__class__ = _slimmable_class(slim.__class__)
    slim.switch, slim.outputs, slim.parts = switch, tuple(outputs), parts


class SlimmableBatchNorm(nn.Module):
    """A batch norm of its own for each width, all starting as the leading channels of `layer`."""

    def __init__(self, layer: BatchNorm, sizes: Sequence[int], switch: WidthSwitch) -> None:
        super().__init__()
        self.switch = switch
        self.bn = nn.ModuleList(_leading_channels(layer, size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn[self.switch.index](x)


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


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
