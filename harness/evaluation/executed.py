"""Multiply-accumulates of the operations that are executed, forward and backward.

torch has formulas for matrix products, convolutions and fused attention on CUDA. Here are those that it lacks (attention
and recurrent layers of the CPU) and one that it has wrong (backward of grouped convolutions, too high by the number of
groups). Element-wise work, norms, pooling and optimizers count nothing, and neither does the rendering of images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from subnetbench.harness.core.uncounted import uncounted_now

_aten: Any = torch.ops.aten
# Open: arguments of any operation.
_Formula = Callable[..., int]


def _convolution_backward(gradient: Tensor, images: Tensor, weight: Tensor, *rest: Any, **named: Any) -> int:
    """Each wanted gradient (of the input, of the weight) takes as many products as the forward pass."""
    # bias sizes, stride, padding, dilation, transposed, output padding, groups, wanted gradients
    transposed, wanted = rest[4], rest[7]
    forward = (images if transposed else gradient).numel() * (weight.numel() // max(len(weight), 1))
    return 2 * forward * (bool(wanted[0]) + bool(wanted[1]))


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
    found: int = sdpa_flop_count(query.shape, key.shape, value.shape)  # type: ignore[no-untyped-call]
    return found


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
    shapes = (gradient.shape, query.shape, key.shape, value.shape)
    found: int = sdpa_backward_flop_count(*shapes)  # type: ignore[no-untyped-call]
    return found


def _self_attention(query: Tensor, key: Tensor, value: Tensor, width: int, *rest: Any, **named: Any) -> int:
    """The fused layer of evaluation: three projections, two products of tokens, and the projection behind them."""
    batch, tokens = query.shape[:2]
    return 2 * (batch * tokens * 4 * width * width + 2 * batch * tokens * key.shape[1] * width)


def _encoder_layer(tokens: Tensor, width: int, heads: int, *rest: Any, **named: Any) -> int:
    """A fused transformer layer of evaluation; the feed-forward weights are the last two matrices."""
    matrices = [value for value in (*rest, *named.values()) if isinstance(value, Tensor) and value.ndim == 2]
    feed_forward = sum(matrix.numel() for matrix in matrices[2:4])
    return (
        _self_attention(tokens, tokens, tokens, width, heads, matrices[0]) + 2 * tokens[..., 0].numel() * feed_forward
    )


def _recurrent_layer(sequence: Tensor, input_weight: Tensor, hidden_weight: Tensor, *rest: Any, **named: Any) -> int:
    """One direction of one layer of oneDNN: each step of each sequence meets both matrices."""
    return 2 * sequence[..., 0].numel() * (input_weight.numel() + hidden_weight.numel())


def _recurrent_layer_backward(*args: Any, **named: Any) -> int:
    return 2 * _recurrent_layer(*args)


def _recurrent_layers(sequence: Tensor, weights: list[Tensor], *rest: Any, **named: Any) -> int:
    """All layers and directions of cuDNN."""
    return 2 * sequence[..., 0].numel() * sum(weight.numel() for weight in weights if weight.ndim == 2)


def _recurrent_layers_backward(*args: Any, **named: Any) -> int:
    return 2 * _recurrent_layers(*args)


# Floating-point operations, as torch counts them: two for each multiply-accumulate.
_FORMULAS: dict[Any, _Formula] = {
    _aten.convolution_backward: _convolution_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._native_multi_head_attention: _self_attention,
    _aten._transformer_encoder_layer_fwd: _encoder_layer,
    _aten.mkldnn_rnn_layer: _recurrent_layer,
    _aten.mkldnn_rnn_layer_backward: _recurrent_layer_backward,
    _aten._cudnn_rnn: _recurrent_layers,
    _aten._cudnn_rnn_backward: _recurrent_layers_backward,
}


def formula_of(operation: Any) -> _Formula | None:
    """The floating-point operations of an operator as a function of its arguments and `out_val`; None: not counted."""
    found: _Formula | None = _FORMULAS.get(operation) or flop_registry.get(operation)
    return found


@cache
def _known(func: Any) -> tuple[_Formula | None, bool]:
    """The formula of an operation, and whether torch can take it apart."""
    formula = formula_of(func._overloadpacket)
    apart = formula is None and func is not torch.ops.prim.device.default and func._can_decompose()
    return formula, bool(apart)


class ExecutedMacs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the multiply-accumulates of what is executed inside it, on this thread and in its backward passes.

    Bits do not change: operations without a formula that are composed of others are taken apart by torch itself.
    `rows` are the names of cached rows that were counted already.
    """

    def __init__(self, rows: set[str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.rows = set() if rows is None else rows

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,  # open: torch's signature
    ) -> Any:
        kwargs = kwargs or {}
        formula, apart = _known(func)
        if apart:
            with self:
                result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        result = func(*args, **kwargs)
        if formula is not None and not uncounted_now():
            self.total += formula(*args, **kwargs, out_val=result) // 2
        return result


_open: ContextVar[tuple[ExecutedMacs, ...]] = ContextVar("open counters", default=())


@contextmanager
def counted(rows: set[str] | None = None) -> Iterator[ExecutedMacs]:
    """Count what is executed inside; counters may be nested, and each sees what is executed inside it.

    `rows` are the names of cached rows that are counted already; those that are read or computed inside are added.
    """
    counter = ExecutedMacs(rows)
    token = _open.set((*_open.get(), counter))
    try:
        with counter:
            yield counter
    finally:
        _open.reset(token)


def note_rows(name: str, macs: int = 0) -> None:
    """Say that rows were computed just now, or read from a cache where computing them took `macs`: whoever needs them
    has spent that, once."""
    if not uncounted_now():
        for counter in _open.get():
            if name not in counter.rows:
                counter.rows.add(name)
                counter.total += macs
