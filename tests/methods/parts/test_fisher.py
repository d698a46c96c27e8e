"""Fisher pruning: search within a budget, rearrangement, tuning."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.vit.fisher import UnitCosts, rearrange, rearrange_masks, search_masks
from subnetbench.methods.parts.vit.mask_tuning import NormalEquations, solve_factors, tune_masks
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape
from subnetbench.methods.parts.vit.pruning import (
    MaskedViT,
    Masks,
    calibration_gradients,
    fisher_information,
    full_masks,
    random_masks,
    symmetric_clip_loss,
)

COSTS = UnitCosts(head=50, neuron=7)


def small_vit() -> PlainViT:
    torch.manual_seed(0)
    shape = ViTShape(
        image_size=32, patch_size=8, width=24, head_width=6, heads=(4,) * 4, neurons=(64,) * 4, embedding=16
    )
    return PlainViT(shape).eval()


def information(seed: int, head_scale: float = 1.0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return Masks(head_scale * torch.rand(3, 4, generator=generator), torch.rand(3, 20, generator=generator))


@given(st.integers(0, 999), st.floats(0.01, 1), st.sampled_from([0.01, 1.0, 100.0]))
def test_the_guarded_search_keeps_its_budget_and_is_the_best(seed, capacity, head_scale):
    info = information(seed, head_scale)
    masks = search_masks(info, COSTS, capacity)
    budget = capacity * (12 * 50 + 60 * 7)
    assert COSTS.total(masks) <= budget
    heads, neurons = (part.flatten().sort(descending=True).values.double() for part in info)
    best = max(
        heads[:count].sum() + neurons[: min(60, int((budget - 50 * count) // 7))].sum()
        for count in range(13)
        if 50 * count <= budget
    )
    found = sum((part * mask).double().sum() for part, mask in zip(info, masks, strict=True))
    assert float(found) == pytest.approx(float(best))


def test_only_the_published_search_overruns_its_budget():
    info, budget = information(0, head_scale=100.0), 0.3 * (12 * 50 + 60 * 7)
    assert COSTS.total(search_masks(info, COSTS, 0.3, guard_budget=False)) == 12 * 50 > budget
    assert COSTS.total(search_masks(info, COSTS, 0.3)) <= budget


def test_nearly_all_of_the_budget_keeps_nearly_everything():
    everything = search_masks(information(1), COSTS, 1.0)
    assert all(mask.all() for mask in everything)
    nearly = search_masks(information(1), COSTS, 1 - 1e-6)
    assert sum(int((mask == 0).sum()) for mask in nearly) == 1


def test_ties_go_to_the_lower_index():
    masks = search_masks(Masks(torch.zeros(1, 3), torch.ones(1, 10)), UnitCosts(1, 1), 4 / 13)
    assert masks.heads.tolist() == [[0, 0, 0]]
    assert masks.neurons.tolist() == [[1] * 4 + [0] * 6]


def test_capacity_is_checked():
    for capacity in (0.0, 1.1):
        with pytest.raises(UserError, match="capacity"):
            search_masks(information(0), COSTS, capacity)


def slow_rearrangement(mask: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """The greedy exchange as it is written: every candidate set summed anew."""
    ascending = np.argsort((gradients**2).sum(0), kind="stable").tolist()
    count = int((mask == 0).sum())
    pruned = ascending[:count]
    for unit in ascending[count:]:
        grown = [*pruned, unit]
        rests = [[other for other in grown if other != leaver] for leaver in grown]
        sums = [(gradients[:, rest].sum(1) ** 2).sum() for rest in rests]
        pruned = rests[int(np.argmin(sums))]
    result = np.ones_like(mask)
    result[pruned] = 0
    return result


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(1, 11))
def test_rearrangement_is_the_greedy_exchange(seed, pruned):
    gradients = np.random.default_rng(seed).normal(size=(5, 12)) + 0.5
    mask = np.ones(12)
    mask[:pruned] = 0
    found = rearrange(mask, gradients)
    assert (found == slow_rearrangement(mask, gradients)).all()
    assert (found == 0).sum() == pruned


def test_layers_without_a_choice_are_left_alone():
    for mask in (np.ones(4), np.zeros(4)):
        assert (rearrange(mask, np.random.default_rng(0).normal(size=(3, 4))) == mask).all()


@given(st.integers(0, 99), st.integers(1, 12), st.sampled_from([1e-3, 1.0, 1e4]))
def test_factors_solve_the_damped_problem(seed, size, scale):
    generator = np.random.default_rng(seed)
    design = scale * generator.normal(size=(20, size))
    gram, target = design.T @ design, design.T @ generator.normal(size=20)
    x = solve_factors(NormalEquations(torch.from_numpy(gram), torch.from_numpy(target))).numpy() - 1
    stacked = np.vstack([gram, np.eye(size)])
    wanted = np.linalg.lstsq(stacked, np.concatenate([target - gram.sum(1), np.zeros(size)]), rcond=None)[0]
    np.testing.assert_allclose(x, wanted, atol=1e-8 * max(1, np.abs(wanted).max()))


def test_tuning_of_an_unpruned_network_changes_nothing_but_for_the_damping():
    vit, images = small_vit(), torch.randn(2, 3, 3, 32, 32)
    tuned = tune_masks(vit, full_masks(vit), images)
    for mask in tuned:
        torch.testing.assert_close(mask, torch.ones_like(mask), atol=1e-3, rtol=0)


def test_normal_equations_are_those_of_the_design_matrix():
    vit, images = small_vit(), torch.randn(2, 3, 3, 32, 32)
    masks = full_masks(vit)
    masks.heads[1, 2] = masks.neurons[0, 5:] = 0
    steps = {}
    tune_masks(vit, masks, images, report=lambda step: steps.setdefault((step.layer, step.part), step))
    layer = vit.stack[0]
    with torch.no_grad():
        tokens = vit.embed_patches(images.flatten(0, 1))
        attended = tokens + layer.attention(layer.attention_norm(tokens))
        hidden = layer.feed_forward.activate(layer.feed_forward_norm(attended)).double()
        weight = layer.feed_forward.output.weight.double()
        design = torch.stack([(hidden[..., i, None] * weight[:, i]).flatten() for i in range(5)], dim=1)
        target = (layer(tokens) - layer.feed_forward.output.bias - attended).flatten().double()
    equations = steps[0, "neurons"].equations
    torch.testing.assert_close(equations.gram, design.T @ design, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(equations.moments, design.T @ target, rtol=1e-5, atol=1e-5)
    assert (0, "heads") not in steps
    assert len(steps[1, "heads"].factors) == 3 + 1


def test_factors_are_cut_to_the_limit():
    vit, images = small_vit(), torch.randn(2, 3, 3, 32, 32)
    masks = random_masks(Masks(torch.ones(4, 4), (torch.arange(64) < 6).repeat(4, 1).float()), 0)
    free, cut = tune_masks(vit, masks, images, limit=None), tune_masks(vit, masks, images, limit=0.5)
    assert max(float(mask.abs().max()) for mask in free) > 0.5
    assert max(float(mask.abs().max()) for mask in (cut.heads[1:], cut.neurons)) <= 0.5
    assert torch.equal(cut.heads[0], masks.heads[0])


def test_hidden_states_on_disk_give_the_same(tmp_path):
    vit, images = small_vit(), torch.randn(2, 3, 3, 32, 32)
    masks = random_masks(Masks(torch.ones(4, 4), (torch.arange(64) < 40).repeat(4, 1).float()), 0)
    in_memory, on_disk = tune_masks(vit, masks, images), tune_masks(vit, masks, images, scratch=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(in_memory, on_disk, strict=True))
    assert not list(tmp_path.iterdir())


def uneven_vit() -> PlainViT:
    """Heads and neurons that matter by a factor of up to 100 more than others, as in trained networks."""
    vit = small_vit()
    with torch.no_grad():
        for layer in vit.stack:
            for linear, width in ((layer.attention.output, vit.shape.head_width), (layer.feed_forward.output, 1)):
                weights = 10 ** (2 * torch.rand(linear.in_features // width) - 1)
                linear.weight.mul_(weights.repeat_interleave(width))
    return vit


def test_tuning_brings_a_pruned_network_closer_to_the_dense_one():
    vit, images = uneven_vit(), torch.randn(20, 8, 3, 32, 32)
    everything = full_masks(vit)
    masks = random_masks(Masks(everything.heads, (torch.arange(64) < 32).repeat(4, 1).float()), 0)
    tuned = tune_masks(vit, masks, images[:16])
    with torch.no_grad():
        unseen = images[16:].flatten(0, 1)
        before, after = ((MaskedViT(vit, m)(unseen) - vit(unseen)).square().mean() for m in (masks, tuned))
    assert after < 0.7 * before


def test_fisher_masks_are_far_better_than_random_ones():
    vit, images = uneven_vit(), torch.randn(72, 8, 3, 32, 32)
    with torch.no_grad():
        targets = [vit(batch) for batch in images]
    calibration = list(zip(images, targets, strict=True))[:64]

    def loss(embeddings: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return symmetric_clip_loss(embeddings, wanted, 3.0)

    def excess(masks: Masks) -> float:
        """Contrastive loss against the dense embeddings of unseen images, above that of the dense ones."""
        with torch.no_grad():
            network = MaskedViT(vit, masks)
            losses = [loss(network(images[i]), targets[i]) - loss(targets[i], targets[i]) for i in range(64, 72)]
        return float(sum(losses)) / len(losses)

    gradients = calibration_gradients(vit, calibration, full_masks(vit), loss)
    info = Masks(fisher_information(gradients.heads), fisher_information(gradients.neurons))
    searched = search_masks(info, UnitCosts.of(17, 24, 6), 0.75)
    rearranged = rearrange_masks(searched, gradients)
    tuned = tune_masks(vit, rearranged, images[:64])
    by_chance = min(excess(random_masks(searched, seed)) for seed in range(5))
    for masks in (searched, rearranged, tuned):
        assert excess(masks) < 0.1 * by_chance
