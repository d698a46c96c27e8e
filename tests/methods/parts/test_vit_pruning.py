"""Masks on heads and neurons, calibration gradients, compaction, sensitivity pruning."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from published.macs import encoder_macs
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape
from subnetbench.methods.parts.vit.pruning import (
    MaskedViT,
    Masks,
    calibration_gradients,
    compact,
    fisher_information,
    full_masks,
    keep_best_head,
    masked,
    random_masks,
    sensitivity_masks,
    symmetric_clip_loss,
)

LAYERS, HEADS, NEURONS = 3, 4, 20
IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small_vit(**changes: object) -> PlainViT:
    torch.manual_seed(0)
    sizes = {"heads": (HEADS,) * LAYERS, "neurons": (NEURONS,) * LAYERS, **changes}
    return PlainViT(ViTShape(image_size=32, patch_size=8, width=24, head_width=6, embedding=10, **sizes)).eval()


def clip_loss(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    return symmetric_clip_loss(images, texts, 2.0)


def batches(count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(5, 3, 32, 32, generator=generator), torch.randn(5, 10, generator=generator)) for _ in range(count)
    ]


factors = st.lists(st.sampled_from([0.0, 0.0, 1.0, -0.7, 2.5]), min_size=HEADS + NEURONS, max_size=HEADS + NEURONS)


@settings(max_examples=25, deadline=None)
@given(st.lists(factors, min_size=LAYERS, max_size=LAYERS))
def test_compacted_equals_masked(rows):
    vit, table = small_vit(), torch.tensor(rows)
    masks = Masks(table[:, :HEADS], table[:, HEADS:])
    small = compact(vit, masks)
    assert small.shape.heads == tuple((masks.heads != 0).sum(1).tolist())
    assert small.shape.neurons == tuple((masks.neurons != 0).sum(1).tolist())
    with torch.no_grad():
        torch.testing.assert_close(small(IMAGES), MaskedViT(vit, masks)(IMAGES), atol=1e-5, rtol=0)


def test_full_masks_change_nothing_and_hooks_are_removed():
    vit = small_vit()
    with torch.no_grad():
        dense = vit(IMAGES)
        assert torch.equal(MaskedViT(vit, full_masks(vit))(IMAGES), dense)
        MaskedViT(vit, Masks(torch.zeros(LAYERS, HEADS), torch.zeros(LAYERS, NEURONS)))(IMAGES)
        assert torch.equal(vit(IMAGES), dense)
    with pytest.raises(RuntimeError), masked(vit, Masks(torch.ones(LAYERS, HEADS), torch.ones(LAYERS, 3))):
        vit(IMAGES)
    with torch.no_grad():
        assert torch.equal(vit(IMAGES), dense)


def test_gradients_agree_with_differences():
    vit, given_batches = small_vit().double(), [(a.double(), b.double()) for a, b in batches()]
    masks = full_masks(vit)
    gradients = calibration_gradients(vit, given_batches, masks, clip_loss)
    assert gradients.heads.shape == (2, LAYERS, HEADS)
    assert gradients.neurons.shape == (2, LAYERS, NEURONS)
    step = 1e-5
    for batch, (images, texts) in enumerate(given_batches):
        for part, index in (("heads", (1, 2)), ("neurons", (2, 7)), ("neurons", (0, 0))):
            losses = []
            for sign in (1, -1):
                moved = Masks(masks.heads.clone(), masks.neurons.clone())
                getattr(moved, part)[index] += sign * step
                with torch.no_grad(), masked(vit, moved):
                    losses.append(clip_loss(vit(images), texts))
            difference = (losses[0] - losses[1]) / (2 * step)
            torch.testing.assert_close(getattr(gradients, part)[(batch, *index)], difference, atol=1e-7, rtol=1e-4)


def test_calibration_leaves_the_weights_alone():
    vit = small_vit()
    vit.patch.requires_grad_(False)
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    calibration_gradients(vit, batches(), full_masks(vit), clip_loss)
    assert all(parameter.grad is None for parameter in vit.parameters())
    assert [name for name, p in vit.named_parameters() if not p.requires_grad] == ["patch.weight"]
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    with pytest.raises(UserError, match="batch"):
        calibration_gradients(vit, [], full_masks(vit), clip_loss)


def test_the_clip_loss_is_symmetric_and_small_for_pairs():
    images, texts = torch.randn(6, 10), torch.randn(6, 10)
    torch.testing.assert_close(clip_loss(images, texts), clip_loss(texts, images))
    torch.testing.assert_close(clip_loss(3 * images, texts), clip_loss(images, texts))
    assert symmetric_clip_loss(texts, texts, 5.0) < 1e-3 < symmetric_clip_loss(texts.flip(0), texts, 5.0)


def test_sensitivity_keeps_one_head_in_one_layer_a_step():
    information = torch.tensor([[1.0, 2, 3, 4], [0, 9, 0, 0], [5, 5, 6, 5]])
    first = keep_best_head(torch.ones(3, 4), information)
    assert first.tolist() == [[1, 1, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]]
    second = keep_best_head(first, information)
    assert second[2].tolist() == [0, 0, 1, 0]
    third = keep_best_head(second, information)
    assert third[0].tolist() == [0, 0, 0, 1]
    assert torch.equal(keep_best_head(third, information), third)


def test_sensitivity_pruning_recomputes_gradients_under_the_present_masks():
    vit, seen = small_vit(), []

    def gradients(masks: Masks) -> torch.Tensor:
        seen.append(masks.heads.clone())
        return calibration_gradients(vit, batches(), masks, clip_loss).heads

    pruned = sensitivity_masks(full_masks(vit), 2, gradients)
    assert [int(mask.sum()) for mask in seen] == [12, 9]
    assert int(pruned.heads.sum()) == 12 - 2 * (HEADS - 1)
    assert pruned.neurons.all()
    with pytest.raises(UserError, match="steps"):
        sensitivity_masks(full_masks(vit), 4, gradients)


def test_random_masks_cost_the_same():
    like = Masks(torch.zeros(LAYERS, HEADS), torch.zeros(LAYERS, NEURONS))
    like.heads[0, :3] = 0.5
    like.neurons[2, 4:11] = -2.0
    drawn = random_masks(like, seed=0)
    assert [int(mask.sum()) for mask in drawn] == [3, 7]
    assert all(torch.equal(a, b) for a, b in zip(random_masks(like, 0), drawn, strict=True))
    assert not torch.equal(random_masks(like, 1).neurons, drawn.neurons)
    costs = [
        encoder_macs(17, 24, 6, (masks.heads != 0).sum(1).tolist(), (masks.neurons != 0).sum(1).tolist())
        for masks in (like, drawn)
    ]
    assert costs[0] == costs[1]


def test_pruning_a_pruned_vit_is_refused():
    with pytest.raises(UserError, match="same size"):
        full_masks(small_vit(heads=(4, 4, 3)))


def test_fisher_information_is_the_sum_of_squares():
    gradients = torch.tensor([[1.0, -2], [3, 0]])
    assert fisher_information(gradients).tolist() == [10, 4]


def test_a_compacted_vit_is_faster():
    shape = ViTShape(
        image_size=128, patch_size=8, width=256, head_width=64, heads=(4,) * 4, neurons=(1024,) * 4, embedding=64
    )
    torch.manual_seed(0)
    vit, images = PlainViT(shape).eval(), torch.randn(4, 3, 128, 128)
    masks = full_masks(vit)
    masks.heads[:, 1:] = 0
    masks.neurons[:, 256:] = 0
    networks = {"dense": vit, "compacted": compact(vit, masks)}
    seconds = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(7):
            for name, network in networks.items():
                start = time.perf_counter()
                network(images)
                seconds[name].append(time.perf_counter() - start)
    assert min(seconds["compacted"]) < 0.7 * min(seconds["dense"])
