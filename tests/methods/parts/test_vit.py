"""The plain ViT, and its copies of library towers."""

import open_clip
import pytest
import timm
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from published.macs import vit_macs
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.vit.conversion import image_features, plain_vit
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape

SHAPE = ViTShape(image_size=32, patch_size=8, width=24, head_width=6, heads=(4, 0, 2), neurons=(32, 5, 0), embedding=10)
VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 10,
}


def transformers_clip() -> CLIPModel:
    text = {**VISION, "vocab_size": 64}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=10))


def transformers_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, hidden_act="gelu"))


def open_clip_model(**changes: object) -> open_clip.CLIP:
    vision = {"image_size": 32, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8, **changes}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    return open_clip.CLIP(embed_dim=10, vision_cfg=vision, text_cfg=text)


def timm_vit(**changes: object) -> timm.models.VisionTransformer:
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 10}
    return timm.models.VisionTransformer(**{**options, **changes})


@pytest.mark.parametrize(
    "make",
    [
        transformers_clip,
        transformers_vision,
        open_clip_model,
        lambda: open_clip_model().visual,
        timm_vit,
        lambda: timm_vit(pre_norm=True),
        lambda: timm_vit(num_classes=0, qkv_bias=False),
        lambda: timm_vit(in_chans=1, act_layer="quick_gelu"),
        lambda: open_clip_model().bfloat16(),
    ],
)
def test_library_towers_are_copied(make):
    torch.manual_seed(0)
    tower = make().train()
    vit = plain_vit(tower)
    assert tower.training
    assert not vit.training
    tower.float().eval()
    images = torch.randn(3, vit.shape.channels, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(vit(images), image_features(tower, images), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm_vit(init_values=0.1),
        lambda: timm_vit(reg_tokens=2),
        lambda: timm_vit(global_pool="avg"),
        lambda: timm_vit(no_embed_class=True),
        lambda: timm_vit(norm_layer="rmsnorm"),
        lambda: open_clip_model(ls_init_value=0.5),
        lambda: open_clip_model(pool_type="avg"),
        lambda: timm.create_model("resnet18"),
        lambda: torch.nn.Linear(2, 2),
    ],
)
def test_towers_that_do_more_are_refused(make):
    torch.manual_seed(0)
    tower = make()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with pytest.raises(UserError, match="plain ViT"):
        plain_vit(tower)


def test_layers_may_have_no_heads_or_no_neurons():
    vit = PlainViT(SHAPE)
    images = torch.randn(2, 3, 32, 32)
    vit(images).sum().backward()
    assert vit(images).shape == (2, 10)


def test_shape_and_weights_are_the_whole_model():
    vit, images = PlainViT(SHAPE).eval(), torch.randn(2, 3, 32, 32)
    again = PlainViT(ViTShape.model_validate_json(SHAPE.model_dump_json())).eval()
    again.load_state_dict(vit.state_dict())
    assert torch.equal(again(images), vit(images))


@pytest.mark.parametrize("change", [{"heads": (4, 4)}, {"patch_size": 7}, {"heads": (), "neurons": ()}, {"width": 0}])
def test_impossible_shapes_are_refused(change):
    with pytest.raises(ValidationError):
        ViTShape(**{**SHAPE.model_dump(), **change})


def test_multiply_accumulates_are_those_of_the_model():
    shape = SHAPE.model_copy(update={"heads": (4, 1, 2), "neurons": (32, 5, 8)})
    vit = PlainViT(shape)
    with torch.device("meta"):
        images = torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vit.to("meta")(images)
    formula = vit_macs(
        patches=16,
        patch_values=192,
        width=24,
        head_width=6,
        heads=shape.heads,
        neurons=shape.neurons,
        embedding=10,
    )
    assert counter.get_total_flops() == 2 * formula
