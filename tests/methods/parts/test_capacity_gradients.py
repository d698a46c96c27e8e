"""PrunNet's step from one gradient a capacity against copies of the network with masks inside autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.capacity.gradients import Subnetworks
from subnetbench.methods.parts.capacity.scores import ScoreMaps, prunable_parameters
from subnetbench.methods.parts.masks.order_statistics import nested_masks

SPARSITIES = (0.3, 0.7)
CAPACITIES = (Capacity(0.7), Capacity(0.3))


class KeepLargest(torch.autograd.Function):
    """mask * weight with the straight-through gradient of |score| for the score."""

    @staticmethod
    def forward(ctx, weight: Tensor, score: Tensor, sparsity: float) -> Tensor:
        mask = nested_masks(score, [sparsity])[0]
        ctx.save_for_backward(weight, score, mask)
        return weight * mask

    @staticmethod
    def backward(ctx, gradient: Tensor):
        weight, score, mask = ctx.saved_tensors
        return gradient * mask, gradient * weight * score.sign(), None


def make_network(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        *middle,
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 5),
    )


def make_problem(norm: bool = False):
    network = make_network(norm)
    weights = prunable_parameters(network)
    scores = ScoreMaps(weights)
    scores.initialise_uniform(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(8, 3, 7, 7, generator=generator), torch.arange(8) % 5
    return network, weights, scores, images, labels


def others_of(network: nn.Module, weights) -> dict[str, nn.Parameter]:
    return {name: p for name, p in network.named_parameters() if name not in weights}


def raw_gradients(network, weights, leaves, images, labels):
    """Gradients of a loss with respect to leaves, and of the other parameters as the rest."""
    others = {name: p.detach().requires_grad_() for name, p in others_of(network, weights).items()}
    loss = F.cross_entropy(functional_call(network, {**leaves, **others}, images), labels)
    found = torch.autograd.grad(loss, [*leaves.values(), *others.values()])
    return dict(zip(leaves, found, strict=False)), found[len(leaves) :]


@pytest.mark.parametrize("clip_norm", [None, 100.0, 0.05])
@pytest.mark.parametrize("norm", [False, True])
def test_a_subnetworks_gradients_are_those_of_a_masked_copy(norm, clip_norm):
    network, weights, scores, images, labels = make_problem(norm)
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    for i, sparsity in enumerate(SPARSITIES):
        raw, rest = raw_gradients(network, weights, subnetworks.leaves(i), images, labels)
        found, size = subnetworks.finish(i, raw, rest, clip_norm=clip_norm)

        own = scores.as_dict()
        masked = {name: KeepLargest.apply(weight, own[name], sparsity) for name, weight in weights.items()}
        loss = F.cross_entropy(functional_call(network, masked, images), labels)
        inputs = [*weights.values(), *own.values(), *others_of(network, weights).values()]
        expected = torch.autograd.grad(loss, inputs)
        total = torch.cat([gradient.flatten() for gradient in expected]).norm()
        if clip_norm is not None:
            assert size == pytest.approx(total.item(), rel=1e-5)
        factor = 1.0 if clip_norm is None else min(1.0, clip_norm / (total.item() + 1e-6))
        for name, gradient in zip(weights, expected, strict=False):
            assert torch.allclose(found[name], factor * gradient, rtol=1e-5, atol=1e-7), name


def test_without_trained_scores_the_norm_is_that_of_the_weights():
    network, weights, scores, images, labels = make_problem()
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    raw, rest = raw_gradients(network, weights, subnetworks.leaves(0), images, labels)
    found, size = subnetworks.finish(0, raw, rest, clip_norm=1e9, train_scores=False)
    assert size == pytest.approx(torch.cat([g.flatten() for g in found.values()]).norm().item(), rel=1e-5)


def all_gradients(problem, subnetworks: Subnetworks):
    network, weights, _, images, labels = problem
    dense, _ = raw_gradients(network, weights, dict(weights), images, labels)
    finished = []
    for i in range(len(subnetworks)):
        raw, rest = raw_gradients(network, weights, subnetworks.leaves(i), images, labels)
        finished.append(subnetworks.finish(i, raw, rest)[0])
    return [subnetworks.keep_dense(dense), *finished]


def test_the_sum_is_the_gradient_of_the_sum_of_losses():
    problem = make_problem()
    network, weights, scores, images, labels = problem
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    of_weights, (of_scores,) = subnetworks.combine(all_gradients(problem, subnetworks), rule="sum")

    own = scores.as_dict()
    total = torch.zeros(())
    for sparsity in (0.0, *SPARSITIES):
        masks = {name: nested_masks(score, [sparsity])[0] for name, score in own.items()}
        masked = {name: KeepLargest.apply(weight, own[name], sparsity) for name, weight in weights.items()}
        # A pruned connection's score moves through the dense network only.
        for name, value in masked.items():
            value.register_hook(lambda gradient, mask=masks[name]: gradient * mask)
        total = total + F.cross_entropy(functional_call(network, masked, images), labels)
    expected = torch.autograd.grad(total, [*weights.values(), *own.values()])
    for found, reference in zip([*of_weights.values(), *of_scores.values()], expected, strict=True):
        assert torch.allclose(found, reference, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rule", ["conflict_aware", "pcgrad"])
def test_averaging_halves_before_combining_gives_the_whole_batch(rule):
    """As micro-batches and processes do: on a network without batch norm the two agree."""
    problem = make_problem()
    network, weights, scores, images, labels = problem
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    orders = subnetworks.draw_orders(torch.Generator().manual_seed(5), rule=rule)
    whole = subnetworks.combine(all_gradients(problem, subnetworks), orders, rule=rule)

    def averaged(leaves):
        halves = [
            raw_gradients(network, weights, leaves, images[cut], labels[cut]) for cut in (slice(0, 4), slice(4, 8))
        ]
        return (
            {name: (halves[0][0][name] + halves[1][0][name]) / 2 for name in leaves},
            [(a + b) / 2 for a, b in zip(halves[0][1], halves[1][1], strict=True)],
        )

    dense, _ = averaged(dict(weights))
    finished = [subnetworks.finish(i, *averaged(subnetworks.leaves(i)))[0] for i in range(len(subnetworks))]
    split = subnetworks.combine([dense, *finished], orders, rule=rule)
    for mine, theirs in ((whole[0], split[0]), (whole[1][0], split[1][0])):
        for name, gradient in mine.items():
            assert torch.allclose(gradient, theirs[name], rtol=1e-3, atol=1e-6), name


def test_score_maps_of_their_own_take_their_subnetworks_gradient():
    problem = make_problem()
    _, weights, scores, *_ = problem
    second = ScoreMaps(weights)
    second.initialise_uniform(torch.Generator().manual_seed(9))
    maps = [scores.as_dict(), second.as_dict()]
    subnetworks = Subnetworks(weights, maps, CAPACITIES)
    gradients = all_gradients(problem, subnetworks)
    kept = [{name: g.clone() for name, g in part.items()} for part in gradients]
    orders = subnetworks.draw_orders(torch.Generator().manual_seed(5))
    assert len(orders) == len(weights)
    _, of_scores = subnetworks.combine(gradients, orders)
    for i, own in enumerate(maps):
        for name, score in own.items():
            assert torch.allclose(of_scores[i][name], kept[i + 1][name] * weights[name] * score.sign())
            assert not of_scores[i][name][~subnetworks.masks(i)[name]].any()


def test_frozen_scores_get_no_gradient():
    problem = make_problem()
    _, weights, scores, *_ = problem
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    orders = subnetworks.draw_orders(torch.Generator(), train_scores=False)
    assert len(orders) == len(weights)
    _, of_scores = subnetworks.combine(all_gradients(problem, subnetworks), orders, train_scores=False)
    assert of_scores == [{}]


def test_masks_follow_the_scores_only_when_selected_anew():
    _, weights, scores, *_ = make_problem()
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    subnetworks.select()
    before = {name: int(mask.sum()) for name, mask in subnetworks.masks(0).items()}
    with torch.no_grad():
        for score in scores.parameters():
            score.mul_(2)
    changed = {name: int(mask.sum()) for name, mask in subnetworks.masks(0).items()}
    assert changed != before
    subnetworks.select()
    assert {name: int(mask.sum()) for name, mask in subnetworks.masks(0).items()} == before


def test_unused_weights_count_as_zero():
    _, weights, scores, *_ = make_problem()
    subnetworks = Subnetworks(weights, scores.as_dict(), CAPACITIES)
    subnetworks.leaves(0)
    finished, size = subnetworks.finish(0, dict.fromkeys(weights), [None])
    assert size == 0
    assert all(not gradient.any() for gradient in finished.values())


def test_as_many_score_maps_as_capacities():
    _, weights, scores, *_ = make_problem()
    with pytest.raises(UserError, match="scores"):
        Subnetworks(weights, [scores.as_dict()], CAPACITIES)
