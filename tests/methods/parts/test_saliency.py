"""Scores at the start against what their formulas say: difference quotients, a whole Hessian, products of matrices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from subnetbench.harness.core.errors import RunFailure
from subnetbench.methods.parts.masks.masked_model import mask_network
from subnetbench.methods.parts.masks.masks import FixedMask
from subnetbench.methods.parts.masks.saliency import grasp_scores, snip_scores, synflow_masks


class Given(list):
    """Batches at hand, of one rank."""

    def __len__(self):
        return sum(len(images) for images, _ in self)

    def sum_over_ranks(self, tensors):
        pass


def examples(*sizes):
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in sizes]
    return Given((images, torch.randint(0, 3, (len(images),), generator=generator)) for images in drawn)


@pytest.fixture
def masked():
    torch.manual_seed(0)
    return mask_network(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double(), FixedMask())


def loss_of(masked, flat, batches, temperature=1.0):
    """The mean loss as a function of all masked weights in one vector."""
    pieces = torch.split(flat, [masked.weight(name).numel() for name in masked.names])
    weights = {n: p.view_as(masked.weight(n)) for n, p in zip(masked.names, pieces, strict=True)}
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return F.cross_entropy(masked.call(weights, images) / temperature, labels)


def flat(scores):
    return torch.cat([score.flatten() for score in scores.values()])


def test_snip_is_the_change_of_the_loss_when_a_connection_begins_to_go(masked):
    batches = examples(7, 4)
    weights = flat({name: masked.weight(name) for name in masked.names}).detach()
    expected = []
    for i in range(len(weights)):
        gates = torch.ones_like(weights)
        values = [
            loss_of(masked, weights * gates.index_fill(0, torch.tensor([i]), 1 + e), batches) for e in (1e-5, -1e-5)
        ]
        expected.append(abs(values[0] - values[1]) / 2e-5)
    torch.testing.assert_close(flat(snip_scores(masked, batches)), torch.stack(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_minus_the_weight_times_the_hessian_times_the_gradient(masked, temperature):
    batches = examples(11)
    weights = flat({name: masked.weight(name) for name in masked.names}).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(masked, weights, batches, temperature), weights)
    hessian = torch.autograd.functional.hessian(lambda w: loss_of(masked, w, batches, temperature), weights)
    found = flat(grasp_scores(masked, batches, temperature))
    torch.testing.assert_close(found, -weights.detach() * (hessian @ gradient))


def test_grasp_of_several_batches_is_that_of_one(masked):
    batches = examples(6, 5)
    whole = Given([tuple(torch.cat(parts) for parts in zip(*batches, strict=True))])
    torch.testing.assert_close(grasp_scores(masked, batches, 1.0), grasp_scores(masked, whole, 1.0))


def test_scores_leave_the_network_as_it_is():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    masked = mask_network(network, FixedMask())
    before = {name: value.clone() for name, value in masked.state_dict().items()}
    snip_scores(masked, examples(8))
    grasp_scores(masked, examples(8), 1.0)
    synflow_masks(masked, 0.5, 3, (5,))
    assert all(torch.equal(value, before[name]) for name, value in masked.state_dict().items())
    assert all(parameter.grad is None for parameter in masked.parameters())


@pytest.mark.parametrize(("sparsity", "iterations"), [(0.5, 1), (0.8, 7), (0.7, 20)])
def test_synflow_is_what_products_of_matrices_say(sparsity, iterations):
    """For linear layers the flow through a weight is what arrives at it times the weight times what it leads to.

    At higher sparsities paths of single connections remain, whose scores are equal.
    """
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Linear(i, o, bias=False) for i, o in ((6, 8), (8, 7), (7, 3))))
    weights = [abs(layer.weight.detach().double().numpy()) for layer in network]
    kept = [np.ones_like(weight) for weight in weights]
    total = sum(weight.size for weight in weights)
    for k in range(1, iterations + 1):
        first, second, third = (weight * mask for weight, mask in zip(weights, kept, strict=True))
        ones, out = np.ones(6), np.ones(3)
        scores = [
            first * np.outer(out @ third @ second, ones),
            second * np.outer(out @ third, first @ ones),
            third * np.outer(out, second @ first @ ones),
        ]
        # Conservation: as much flows through each layer.
        assert [score.sum() for score in scores] == pytest.approx([scores[0].sum()] * 3)
        remaining = total - round((1 - (1 - sparsity) ** (k / iterations)) * total)
        least = np.sort(np.concatenate([score.ravel() for score in scores]))[-remaining]
        kept = [(score >= least).astype(float) for score in scores]
    found = synflow_masks(mask_network(network, FixedMask()), sparsity, iterations, (6,))
    assert [mask.double().numpy().tolist() for mask in found.values()] == [mask.tolist() for mask in kept]


def test_scores_that_order_nothing_are_refused():
    masked = mask_network(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double(), FixedMask())
    with torch.no_grad():
        masked.base[2].weight.zero_()
    with pytest.raises(RunFailure, match="all 0"):
        synflow_masks(masked, 0.5, 2, (5,))
    with torch.no_grad():
        masked.base[0].weight.fill_(torch.nan)
    with pytest.raises(RunFailure, match="not finite"):
        snip_scores(masked, examples(8))
