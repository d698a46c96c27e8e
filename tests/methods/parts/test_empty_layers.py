"""A layer that pruning left without heads or neurons is legal wherever a network goes: outputs, costs, exports."""

import math

import numpy as np
import pytest
import torch

from subnetbench.harness.api.exporting import SUFFIX, _onnx, _torch_export
from subnetbench.harness.evaluation.cost import size_metrics
from subnetbench.harness.evaluation.executed import counted
from subnetbench.harness.evaluation.macs import mac_metrics
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape
from subnetbench.methods.parts.vit.pruning import MaskedViT, Masks, compact, full_masks

LAYERS, HEADS, NEURONS, WIDTH, HEAD_WIDTH, TOKENS = 3, 2, 6, 16, 8, 17
SHAPE = ViTShape(
    image_size=16,
    patch_size=4,
    width=WIDTH,
    head_width=HEAD_WIDTH,
    heads=(HEADS,) * LAYERS,
    neurons=(NEURONS,) * LAYERS,
    embedding=8,
)


def _masks(seed: int) -> Masks:
    """Random masks that empty layers: seed 0 empties all, the others each row with an even chance."""
    drawn = np.random.default_rng(seed)
    vit_masks = full_masks(PlainViT(SHAPE))
    made = []
    for mask in vit_masks:
        kept = torch.from_numpy(drawn.random(mask.shape) < 0.6).to(mask.dtype)
        emptied = torch.from_numpy(drawn.random(len(mask)) < 0.5)
        made.append(torch.where(emptied[:, None], 0.0, kept) if seed else torch.zeros_like(mask))
    return Masks(*made)


@pytest.mark.parametrize("seed", range(12))
def test_costs_of_networks_with_empty_layers_are_those_of_what_is_left(seed):
    torch.manual_seed(seed)
    vit, masks = PlainViT(SHAPE).eval(), _masks(seed)
    small = compact(vit, masks)
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad(), counted() as forward:
        torch.testing.assert_close(small(images), MaskedViT(vit, masks)(images), rtol=0, atol=1e-5)
    found = {**size_metrics(small), **mac_metrics(small, images[:1])}
    heads, neurons = (int(mask.sum()) for mask in masks)
    by_heads = heads * (4 * TOKENS * WIDTH * HEAD_WIDTH + 2 * TOKENS**2 * HEAD_WIDTH)
    patches = (TOKENS - 1) * WIDTH * 3 * 16
    assert found["macs_executed"] == patches + by_heads + 2 * neurons * TOKENS * WIDTH + 8 * WIDTH
    assert found["macs_nonzero"] == found["macs_executed"]
    assert all(math.isfinite(value) for value in found.values())
    assert forward.total > 0
    with counted() as backward:
        small(images).sum().backward()
    assert backward.total > 3 * found["macs_executed"]


@pytest.mark.parametrize("writer", [_torch_export, _onnx])
def test_networks_with_empty_layers_are_exported(writer, tmp_path):
    torch.manual_seed(0)
    small = compact(PlainViT(SHAPE).eval(), _masks(0))
    images = torch.randn(4, 3, 16, 16)
    file = tmp_path / f"network{SUFFIX[writer.__name__.removeprefix('_')]}"
    with torch.no_grad():
        torch.testing.assert_close(writer(file, small, images, None, None), small(images), rtol=1e-5, atol=1e-6)
