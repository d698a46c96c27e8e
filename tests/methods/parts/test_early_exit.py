"""Early exit: two levels of one network that share the work of the first layers."""

import numpy as np
import pytest
import torch

from published.clip_student import distil_head
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.methods.parts.text_image.cascade import Cascade
from subnetbench.methods.parts.text_image.early_exit import EarlyExit, early_exit_levels
from subnetbench.methods.parts.text_image.encoders import ClipPreprocessing, TextEncoder
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape

IMAGES = TensorImages(torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8))


def network() -> EarlyExit:
    torch.manual_seed(0)
    shape = ViTShape(
        image_size=32, patch_size=8, width=24, head_width=6, heads=(4,) * 5, neurons=(32,) * 5, embedding=10
    )
    return EarlyExit(PlainViT(shape).eval(), depth=2).eval()


def texts() -> TextEncoder:
    table = torch.randn(100, 10, generator=torch.Generator().manual_seed(3))
    return TextEncoder(
        "table", lambda ids: table[ids[:, 0]], lambda given: [[int(text)] for text in given], context=1,
        pad_token=0, digest="table", template="{}",
    )  # fmt: skip


def test_both_parts_together_are_the_whole_network():
    early, images = network(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(early.finish(early.tokens(images)), early.vit(images))


def test_the_second_level_continues_and_ranks_like_the_whole_network(tmp_path):
    early, view = network(), ClipPreprocessing(size=32)
    levels = early_exit_levels("exit", early, view, texts(), IMAGES, tmp_path)
    assert levels[0].image_encoder != levels[1].image_encoder
    with pytest.raises(UserError, match="first of a cascade"):
        levels[1].embed_images(np.array([0]))
    calls = []
    handle = early.vit.stack[0].register_forward_hook(lambda *_: calls.append(1))
    cascade = Cascade(levels, 30)
    cascade.build()
    built = len(calls)
    ranking = cascade.search(["1", "2", "3"], k=5, m=[30]).ranking
    assert len(calls) == built
    handle.remove()
    with torch.no_grad():
        whole = early.vit(view(IMAGES, np.arange(30)))
        wanted = torch.nn.functional.cosine_similarity(texts().embed(["1", "2", "3"])[:, None], whole[None], dim=2)
    torch.testing.assert_close(levels[1].embed_images(np.arange(30)), whole, atol=1e-5, rtol=0)
    assert (ranking == wanted.argsort(dim=1, descending=True)[:, :5].numpy()).all()


def test_the_exit_learns_the_final_embedding():
    early, images = network(), torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        features, targets = early.class_tokens(images), early.vit(images)
    losses = distil_head(early.head, features.__getitem__, targets, epochs=60, batch_size=16, lr=1e-2)
    assert losses[-4:].mean() < 0.5 * losses[:4].mean()
    with torch.no_grad():
        similarity = torch.nn.functional.cosine_similarity(early(images), targets)
    assert similarity.mean() > 1 - 0.5 * losses[:4].mean()


@pytest.mark.parametrize("depth", [0, 5])
def test_layers_are_needed_on_both_sides(depth):
    with pytest.raises(UserError, match="depth"):
        EarlyExit(network().vit, depth)
