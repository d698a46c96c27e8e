"""Multiply-accumulates of one operation of torch, and the weights that it multiplies with.

Torch has formulas for convolutions, matrix products and attention. Those here are for what it has none for: fused
recurrent layers, bilinear layers, products with vectors, and quantised layers, whose weights are packed.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

Arguments = tuple[Any, ...]
Named = dict[str, Any]  # open: arguments of an operation of torch


@dataclass(frozen=True)
class Product:
    """`macs` multiply-accumulates, each with an element of every one of `operands`."""

    macs: float
    operands: Sequence[torch.Tensor]
    packed: bool = False
    """The operands come out of packed parameters, and so are weights for certain."""


def products_of(func: Any, args: Arguments, kwargs: Named, result: Any) -> list[Product] | None:
    """What an operation multiplies; None where there is no formula for it."""
    packet = func._overloadpacket
    name = str(packet)
    if packet in flop_registry:
        macs = flop_registry[packet](*args, **kwargs, out_val=result) / 2
        # What a product is added to is no factor.
        factors = args[1:3] if name in ("aten.addmm", "aten.baddbmm") else (*args, *kwargs.values())
        return [Product(macs, [each for each in factors if isinstance(each, torch.Tensor) and each.ndim > 1])]
    formula = _quantised if any(map(packed_weights, _flat(args))) else _FORMULAS.get(name)
    return None if formula is None else formula(func, args, result)


def is_free(func: Any) -> bool:
    """Whether an operation is known to multiply no matrices: a view, element-wise, or one of `_FREE`."""
    name = func._opname.removesuffix("_copy")
    if func.namespace == "quantized":
        return not _PRODUCT_NAME.search(name)
    known = func.is_view or torch.Tag.pointwise in func.tags or torch.Tag.inplace_view in func.tags
    return bool(known or (func.namespace in ("aten", "prims") and name.rstrip("_") in _FREE))


def looks_like_a_product(func: Any) -> bool:
    """Whether the name of an operation says that it multiplies matrices, whoever its operands are."""
    return bool(_PRODUCT_NAME.search(func._opname))


def packed_weights(packed: object) -> list[torch.Tensor]:
    """The weights in a packed parameter of quantised layers, without biases; none if `packed` is something else."""
    return [weight for weight, _ in _unpacked(packed)]


def packed_biases(packed: object) -> list[torch.Tensor]:
    """The biases beside `packed_weights`."""
    return [bias for _, bias in _unpacked(packed) if bias is not None]


def packed_tables(packed: object) -> list[torch.Tensor]:
    """The table of a quantised embedding, which is looked up and multiplies nothing; none if `packed` is no such."""
    if isinstance(packed, torch.ScriptObject) and "EmbeddingPackedParams" in packed._type().qualified_name():
        return [torch.ops.quantized.embedding_bag_unpack(packed)]
    return []


def nonzeros(weight: torch.Tensor) -> int:
    """How many elements are not exactly 0; of a quantised tensor, that do not stand for 0; of a sparse one, that are stored
    and are not 0."""
    plain = weight.dequantize() if weight.is_quantized else weight
    return int((plain if plain.layout is torch.strided else plain.to_dense()).count_nonzero())


def _unpacked(packed: object) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    if not isinstance(packed, torch.ScriptObject):
        return
    kind = packed._type().qualified_name().rpartition(".")[2]
    if re.fullmatch(r"(Linear|Conv\dd)PackedParamsBase", kind):
        yield packed.unpack()  # type: ignore[attr-defined]
    elif kind == "CellParamsBase":
        for part in _flat(packed.__getstate__()):
            yield from _unpacked(part)


def _flat(value: object) -> Iterator[object]:
    """The leaves of nested lists and tuples."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _quantised(func: Any, args: Arguments, result: Any) -> list[Product]:
    weights = [weight for each in _flat(args) for weight in packed_weights(each)]
    inputs = next(each for each in args if isinstance(each, torch.Tensor))
    if "conv" in func._opname:
        steps = (inputs if "transpose" in func._opname else result).numel() / weights[0].shape[0]
    else:  # linear layers, and recurrent ones: every weight meets every step of every sample once
        steps = inputs.numel() / inputs.shape[-1]
    return [Product(steps * weight.numel(), [weight], packed=True) for weight in weights]


def _recurrent(inputs: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[Product]:
    steps = inputs.numel() / inputs.shape[-1]
    return [Product(steps * weight.numel(), [weight]) for weight in weights if weight.ndim > 1]


def _trilinear(_: Any, args: Arguments, __: Any) -> list[Product]:
    """A bilinear layer, weight (1, out, in1, in2): the first input with the weight, then that with the second input."""
    samples, weight = args[0].shape[0], args[1]
    macs = float(samples * weight.numel())
    return [Product(macs, [weight]), Product(macs / weight.shape[-2], [])]


def _vector(at: int) -> Callable[[Any, Arguments, Any], list[Product]]:
    return lambda _, args, __: [Product(float(args[at].numel()), [args[at]])]


_FORMULAS: dict[str, Callable[[Any, Arguments, Any], list[Product]]] = {
    "aten.mkldnn_rnn_layer": lambda _, args, __: _recurrent(args[0], args[1:5]),
    "aten._cudnn_rnn": lambda _, args, __: _recurrent(args[0], args[1]),
    "aten._trilinear": _trilinear,
    "aten.mv": _vector(0),
    "aten.addmv": _vector(1),
    "aten.dot": lambda _, args, __: [Product(float(args[0].numel()), args[:2])],
    "aten.vdot": lambda _, args, __: [Product(float(args[0].numel()), args[:2])],
    "aten.addbmm": lambda _, args, __: [Product(float(math.prod(args[1].shape) * args[2].shape[-1]), args[1:3])],
}

_PRODUCT_NAME = re.compile(
    r"mm\b|_mm|matmul|fft|cdist|pdist|euclidean_dist|linalg_(?!vector_norm)|linear(?!1d|2d)|conv|attention|"
    r"rnn|gru(?!_cell$)|lstm(?!_cell$)|sparse|cholesky|qr\b|svd|inverse|triangular_solve"
)
_FREE_NAMES = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_tensor_metadata _batch_norm_no_update
    _batch_norm_with_update _copy_from _embedding_bag _embedding_bag_forward_only _fused_rms_norm _local_scalar_dense
    _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training _pack_padded_sequence
    _resize_output _softmax _thnn_fused_gru_cell _thnn_fused_lstm_cell _to _unique2 _unsafe_index _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _weight_norm_interface
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
    adaptive_max_pool2d all amax amin aminmax any argmax argmin argsort avg_pool1d avg_pool2d avg_pool3d batch_norm
    bernoulli bincount bucketize cat channel_shuffle clone col2im constant_pad_nd copy count_nonzero cudnn_batch_norm
    cummax cummin cumprod cumsum dequantize diag_embed embedding embedding_renorm empty_like equal eye fill flip
    full_like gather glu grid_sampler_2d grid_sampler_3d im2col index index_add index_copy index_fill index_put
    index_reduce index_select int_repr isin kthvalue lift_fresh linalg_vector_norm logcumsumexp logsumexp masked_fill
    masked_scatter masked_select max max_pool2d_with_indices max_pool3d_with_indices mean median min miopen_batch_norm
    mode multinomial nansum native_batch_norm native_channel_shuffle native_dropout native_group_norm
    native_layer_norm new_empty new_empty_strided new_full new_ones new_zeros nonzero norm ones_like pixel_shuffle
    pixel_unshuffle prod put quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic rand_like randint_like
    randn_like reflection_pad1d reflection_pad2d reflection_pad3d renorm repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d resize roll rot90 scatter scatter_add scatter_reduce searchsorted select_scatter
    set slice_scatter sort split_with_sizes std std_mean sum take topk trace tril triu unfold unique_consecutive
    unique_dim unsafe_split unsafe_split_with_sizes upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean zero zeros_like
"""
_FREE = frozenset(_FREE_NAMES.split())
"""Operations that multiply no matrices: copies, look-ups, sums, norms, pooling, interpolation, quantisation."""
