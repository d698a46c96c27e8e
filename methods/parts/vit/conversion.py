"""Copies of library ViT towers (transformers CLIP, open_clip, timm) as a `PlainViT`, checked against the original."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.vit.model import ACTIVATIONS, PlainViT, ViTShape

SUPPORTED = "CLIP vision towers of transformers and open_clip, and class-token ViTs of timm, without extras"


class _Affine(NamedTuple):
    """Weight and bias of a linear layer or a layer norm."""

    weight: Tensor
    bias: Tensor | None


class _Parts(NamedTuple):
    """What every library's tower consists of, under the names of `PlainViT`; `layers` maps names in a layer."""

    image_size: int
    heads: int
    patch: nn.Conv2d
    class_token: Tensor
    positions: Tensor
    norm_before: nn.LayerNorm | None
    layers: list[dict[str, Any]]  # open: modules of three libraries, which share attributes and no type
    activation: nn.Module
    norm_after: nn.LayerNorm
    projection: Any


def plain_vit(tower: nn.Module) -> PlainViT:
    """A `PlainViT` in evaluation mode with copies of the tower's weights, in float32 on the CPU.

    `tower` is a transformers `CLIPModel` or `CLIPVisionModelWithProjection`, an open_clip `CLIP` or its visual
    tower, a timm `VisionTransformer`, or already a `PlainViT`. The copy must reproduce the original on a random
    image; raises `UserError` where it does not or where the architecture is another one.
    """
    if isinstance(tower, PlainViT):
        return tower
    try:
        parts = _parts(tower)
        vit = _assemble(parts)
        same = _agree(vit, tower)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise _unsupported(tower, " ".join(str(error).split())) from error
    if not same:
        raise _unsupported(tower, "it does more than a plain ViT: a copy of its weights gives other outputs")
    return vit


def _unsupported(tower: nn.Module, why: str) -> UserError:
    name = type(tower).__name__
    return UserError(f"cannot be converted to a plain ViT ({why})", field="tower", value=name, allowed=SUPPORTED)


def _parts(tower: Any) -> _Parts:
    if hasattr(tower, "vision_model"):
        return _transformers_parts(tower)
    if hasattr(tower, "visual"):
        tower = tower.visual
    if hasattr(tower, "conv1"):
        return _open_clip_parts(tower)
    if hasattr(tower, "patch_embed"):
        return _timm_parts(tower)
    raise ValueError("unknown architecture")


def _transformers_parts(model: Any) -> _Parts:
    vision = model.vision_model
    layers = list(vision.encoder.layers)
    return _Parts(
        image_size=vision.config.image_size,
        heads=vision.config.num_attention_heads,
        patch=vision.embeddings.patch_embedding,
        class_token=vision.embeddings.class_embedding,
        positions=vision.embeddings.position_embedding.weight,
        norm_before=vision.pre_layrnorm,
        layers=[
            {
                "attention_norm": layer.layer_norm1,
                "attention.query_key_value": _stack(
                    layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj
                ),
                "attention.output": layer.self_attn.out_proj,
                "feed_forward_norm": layer.layer_norm2,
                "feed_forward.hidden": layer.mlp.fc1,
                "feed_forward.output": layer.mlp.fc2,
            }
            for layer in layers
        ],
        activation=layers[0].mlp.activation_fn,
        norm_after=vision.post_layernorm,
        projection=model.visual_projection,
    )


def _open_clip_parts(visual: Any) -> _Parts:
    layers = list(visual.transformer.resblocks)
    return _Parts(
        image_size=visual.image_size[0],
        heads=layers[0].attn.num_heads,
        patch=visual.conv1,
        class_token=visual.class_embedding,
        positions=visual.positional_embedding,
        norm_before=visual.ln_pre if isinstance(visual.ln_pre, nn.LayerNorm) else None,
        layers=[
            {
                "attention_norm": layer.ln_1,
                "attention.query_key_value": _Affine(layer.attn.in_proj_weight, layer.attn.in_proj_bias),
                "attention.output": layer.attn.out_proj,
                "feed_forward_norm": layer.ln_2,
                "feed_forward.hidden": layer.mlp.c_fc,
                "feed_forward.output": layer.mlp.c_proj,
            }
            for layer in layers
        ],
        activation=layers[0].mlp.gelu,
        norm_after=visual.ln_post,
        projection=_Affine(visual.proj.T, None),
    )


def _timm_parts(model: Any) -> _Parts:
    layers = list(model.blocks)
    return _Parts(
        image_size=model.patch_embed.img_size[0],
        heads=layers[0].attn.num_heads,
        patch=model.patch_embed.proj,
        class_token=model.cls_token.flatten(),
        positions=model.pos_embed[0],
        norm_before=model.norm_pre if isinstance(model.norm_pre, nn.LayerNorm) else None,
        layers=[
            {
                "attention_norm": layer.norm1,
                "attention.query_key_value": layer.attn.qkv,
                "attention.output": layer.attn.proj,
                "feed_forward_norm": layer.norm2,
                "feed_forward.hidden": layer.mlp.fc1,
                "feed_forward.output": layer.mlp.fc2,
            }
            for layer in layers
        ],
        activation=layers[0].mlp.act,
        norm_after=model.norm,
        projection=None if isinstance(model.head, nn.Identity) else model.head,
    )


def _stack(*linears: nn.Linear) -> _Affine:
    return _Affine(torch.cat([linear.weight for linear in linears]), torch.cat([linear.bias for linear in linears]))


def _assemble(parts: _Parts) -> PlainViT:
    layers, width = parts.layers, len(parts.class_token)
    projection = parts.projection
    shape = ViTShape(
        image_size=parts.image_size,
        patch_size=parts.patch.kernel_size[0],
        channels=parts.patch.in_channels,
        width=width,
        head_width=layers[0]["attention.output"].weight.shape[1] // parts.heads,
        heads=(parts.heads,) * len(layers),
        neurons=tuple(len(layer["feed_forward.hidden"].weight) for layer in layers),
        embedding=0 if projection is None else len(projection.weight),
        projection_bias=projection is not None and projection.bias is not None,
        activation=_activation_name(parts.activation),
        norm_eps=_common_eps(parts),
        norm_before=parts.norm_before is not None,
        patch_bias=parts.patch.bias is not None,
    )
    modules: dict[str, Any] = {  # open, as `_Parts.layers`
        "patch": _Affine(parts.patch.weight.flatten(1), parts.patch.bias),
        "norm_after": parts.norm_after,
        **{f"layers.{i}.{name}": module for i, layer in enumerate(layers) for name, module in layer.items()},
    }
    if parts.norm_before is not None:
        modules["norm_before"] = parts.norm_before
    if projection is not None:
        modules["projection"] = projection
    vit = PlainViT(shape).eval()
    state = {"class_token": parts.class_token, "positions": parts.positions}
    for name, module in modules.items():
        state[f"{name}.weight"] = module.weight
        if module.bias is not None:
            state[f"{name}.bias"] = module.bias
        elif f"{name}.bias" in vit.state_dict():
            state[f"{name}.bias"] = torch.zeros(len(module.weight))
    vit.load_state_dict({name: value.detach().float().cpu() for name, value in state.items()})
    return vit


def _activation_name(activation: nn.Module) -> Any:
    x = torch.linspace(-6, 6, 97)
    for name, make in ACTIVATIONS.items():
        if torch.allclose(make()(x), activation(x), atol=1e-6):
            return name
    raise ValueError(f"activation {type(activation).__name__} is none of {', '.join(ACTIVATIONS)}")


def _common_eps(parts: _Parts) -> float:
    norms = [parts.norm_after, *(layer[name] for layer in parts.layers for name in layer if name.endswith("norm"))]
    if parts.norm_before is not None:
        norms.append(parts.norm_before)
    found = {float(norm.eps) for norm in norms}
    if len(found) != 1:
        raise ValueError(f"layer norms with different eps: {sorted(found)}")
    return found.pop()


@torch.no_grad()
def _agree(vit: PlainViT, tower: Any) -> bool:
    """Whether both give the same embedding of a random image, to rounding."""
    parameter = next(tower.parameters())
    size, channels = vit.shape.image_size, vit.shape.channels
    image = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    was_training = tower.training
    tower.eval()
    seen = image.to(parameter.device, parameter.dtype)
    try:
        wanted = image_features(tower, seen).float().cpu()
    finally:
        tower.train(was_training)
    tolerance = 1e-4 if parameter.dtype in {torch.float32, torch.float64} else 5e-2
    found = vit(image)
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= tolerance * wanted.abs().max())


def image_features(tower: Any, images: Tensor) -> Tensor:
    """What the library itself computes for normalised images: un-normalised, projected embeddings (n, d)."""
    if hasattr(tower, "get_image_features"):
        out = tower.get_image_features(pixel_values=images)
    elif hasattr(tower, "vision_model"):
        out = tower(pixel_values=images).image_embeds
    elif hasattr(tower, "encode_image"):
        out = tower.encode_image(images)
    else:
        out = tower(images)
    # transformers returns a tensor or an output object, depending on the release
    return out if isinstance(out, Tensor) else out.pooler_output
