"""Pruned image towers of CLIP in the layout of the transformers library, as a ViT under masks.

The cascades' programs remove heads and neurons from `CLIPModel`'s layers, so that layers differ in size. Here what was
kept fills the first heads and neurons of the full size, and masks say that the others are removed: compaction gives
the very network of the file.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from subnetbench.harness.method import UserError, Weights
from subnetbench.methods.parts.vit.model import ViTShape

_ELSEWHERE = ("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids")
_PARTS = {
    "vision_model.embeddings.class_embedding": "class_token",
    "vision_model.embeddings.patch_embedding.weight": "patch.weight",
    "vision_model.embeddings.position_embedding.weight": "positions",
    "visual_projection.weight": "projection.weight",
    **{
        f"vision_model.{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in (("pre_layrnorm", "norm_before"), ("post_layernorm", "norm_after"))
        for kind in ("weight", "bias")
    },
}
_IN_LAYER = {
    "layer_norm1": "attention_norm",
    "layer_norm2": "feed_forward_norm",
    "self_attn.out_proj": "attention.output",
    "mlp.fc1": "feed_forward.hidden",
    "mlp.fc2": "feed_forward.output",
}
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PROJECTION = re.compile(r"self_attn\.([qkv])_proj")


def masked_vit_tensors(weights: Weights, shape: ViTShape) -> Weights:
    """The tensors of a `MaskedViT` of `shape` from those of a pruned `CLIPModel`, or of its vision tower.

    Names that are not known keep theirs, so that `fill` names them. Raises `UserError` where a layer has more heads or
    neurons than `shape`, or heads of another width.
    """
    found: dict[str, Tensor] = {}
    stacked: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.without(*_ELSEWHERE).tensors.items():
        layer = _LAYER.fullmatch(name)
        if name in _PARTS:
            found[f"vit.{_PARTS[name]}"] = value.flatten(1) if _PARTS[name] == "patch.weight" else value
        elif layer is None:
            found[name] = value
        elif projection := _PROJECTION.fullmatch(layer[2]):
            stacked.setdefault(f"vit.layers.{layer[1]}.attention.query_key_value.{layer[3]}", {})[projection[1]] = value
        else:
            inner = _IN_LAYER.get(layer[2], layer[2])
            found[f"vit.layers.{layer[1]}.{inner}.{layer[3]}"] = value
    return weights.renamed(_padded(found, stacked, shape, weights))


def _padded(
    found: Mapping[str, Tensor], stacked: Mapping[str, Mapping[str, Tensor]], shape: ViTShape, weights: Weights
) -> dict[str, Tensor]:
    """All layers at full size, with masks."""
    result = dict(found)
    heads = torch.zeros(shape.layers, shape.heads[0])
    neurons = torch.zeros(shape.layers, shape.neurons[0])
    channels = shape.heads[0] * shape.head_width
    for name, parts in stacked.items():
        if set(parts) != set("qkv"):
            raise UserError(f"lacks the query, key or value of {name}", field=str(weights.path))
        result[name] = torch.cat([_longer(parts[part], 0, channels, name, weights) for part in "qkv"])
    for layer in range(shape.layers):
        prefix = f"vit.layers.{layer}"
        out, hidden = (result.get(f"{prefix}.{name}.weight") for name in ("attention.output", "feed_forward.output"))
        if out is None or hidden is None:
            continue  # named by `fill`
        if out.shape[1] % shape.head_width:
            raise UserError("has heads of another width", field=str(weights.path), value=tuple(out.shape))
        heads[layer, : out.shape[1] // shape.head_width] = 1
        neurons[layer, : hidden.shape[1]] = 1
        for name, axis, size in (
            ("attention.output.weight", 1, channels),
            ("feed_forward.output.weight", 1, shape.neurons[0]),
            ("feed_forward.hidden.weight", 0, shape.neurons[0]),
            ("feed_forward.hidden.bias", 0, shape.neurons[0]),
        ):
            if f"{prefix}.{name}" in result:
                result[f"{prefix}.{name}"] = _longer(result[f"{prefix}.{name}"], axis, size, name, weights)
    return {**result, "heads": heads, "neurons": neurons}


def _longer(value: Tensor, axis: int, size: int, name: str, weights: Weights) -> Tensor:
    """`value` with zeros behind it along an axis."""
    if value.shape[axis] > size:
        raise UserError(f"{name} is larger than the teacher's", field=str(weights.path), value=tuple(value.shape))
    missing = list(value.shape)
    missing[axis] = size - value.shape[axis]
    return torch.cat([value, value.new_zeros(missing)], dim=axis)
