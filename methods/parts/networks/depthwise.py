"""Gradients of depthwise convolutions on a CPU: the same sums as PyTorch's, several times as fast for large kernels."""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]

# The widest kernel whose weight gradients oneDNN computes channel by channel. Wider ones, and those larger than the map,
# it computes in blocks of 16 x 16 channels, of which it needs the diagonal.
_WIDEST = 3


def use_fast_depthwise_gradients(layer: nn.Conv2d) -> None:
    """Let the weight gradients of a depthwise convolution be computed in strips of its kernel, three columns wide.

    The weight gradient of a kernel's column depends on no other column, so a kernel of five columns is one of three and
    one of two. On one thread that takes 1.1 instead of 4.7 ms for 672 channels, 5 x 5, a batch of 32 maps of 4 x 4.

    Copies of the layer do it too. Whatever is not the training of single-precision weights on a CPU goes the usual way.
    """
    layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    forward = type(layer).forward
    if not (torch.is_grad_enabled() and layer.weight.requires_grad and _plain(maps) and _plain(layer.weight)):
        return forward(layer, maps)
    with _Redirected():  # not by calling a convolution here: classes differ in how they pad
        return forward(layer, maps)


def _plain(tensor: Tensor) -> bool:
    """Whether this is a single-precision tensor in the memory of a CPU, outside of tracing and automatic precision."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype is torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not cast(Any, torch.jit).is_tracing()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


class _Redirected(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (_depthwise_conv2d if func is conv2d else func)(*args, **(kwargs or {}))


def _depthwise_conv2d(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair | str = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    height, width = weight.shape[2:]
    small = width <= _WIDEST and height <= maps.shape[2] and width <= maps.shape[3]
    if small or isinstance(padding, str) or tuple(dilation) != (1, 1) or len(weight) != groups:
        return conv2d(maps, weight, bias, stride, padding, dilation, groups)
    found: Tensor = _Convolution.apply(maps, weight, tuple(stride), tuple(padding))
    return found if bias is None else found + bias[:, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv2d(maps, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, weight = ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            of_maps = _convolution_backward(gradient, maps, weight, ctx.stride, ctx.padding, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, maps, weight, ctx.stride, ctx.padding)
        return of_maps, of_weight, None, None


def weight_gradient(gradient: Tensor, maps: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of a depthwise convolution's `weight` (c, 1, height, width), strip by strip.

    `gradient` (b, c, h, w) is that of its result, `maps` (b, c, H, W) what it was given, `stride` and `padding` are those
    of rows and columns.
    """
    height, width = weight.shape[2:]
    # Rows that a kernel larger than the map needs have to exist, and a pad that the stride does not divide is refused.
    rows = 0 if maps.shape[2] < height or padding[0] % stride[0] else padding[0]
    padded = pad(maps, (padding[1], padding[1], padding[0] - rows, padding[0] - rows))
    steps = (gradient.shape[3] - 1) * stride[1]
    found = torch.empty_like(weight)
    for first in range(0, width, _WIDEST):
        strip = slice(first, min(first + _WIDEST, width))
        seen = padded[..., first : strip.stop + steps].contiguous(memory_format=torch.channels_last)
        columns = weight[..., strip].contiguous()
        parts = _convolution_backward(gradient, seen, columns, stride, (rows, 0), (False, True, False))
        found[..., strip] = parts[1]
    return found


def _convolution_backward(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
    return found
