import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor
from torch.nn.functional import normalize

from published.triplet import in_batch_positives
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.methods.parts.losses.triplet import (
    class_balanced_queries,
    distance_weights,
    mine_negatives,
    plan_triplet_epoch,
    triplet_loss,
)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_is_pytorch_metric_learnings_over_all_triplets():
    anchors, positives, negatives = unit(5, 8), unit(5, 3, 8, seed=1), unit(5, 4, 8, seed=2)
    theirs = TripletMarginLoss(margin=0.5, distance=LpDistance(power=2), reducer=MeanReducer())
    triplets = [(b, 5 + 3 * b + p, 20 + 4 * b + n) for b in range(5) for p in range(3) for n in range(4)]
    indices = tuple(torch.tensor(column) for column in zip(*triplets, strict=True))
    vectors = torch.cat([anchors, positives.flatten(0, 1), negatives.flatten(0, 1)])
    expected = theirs(vectors, torch.zeros(40), indices)
    torch.testing.assert_close(triplet_loss(anchors, positives, negatives, 0.5), expected)
    torch.testing.assert_close(triplet_loss(anchors, positives, negatives, 0.5, "sum"), 5 * expected)


def test_satisfied_triplets_have_no_loss_and_no_gradient():
    anchors = unit(2, 8).requires_grad_()
    loss = triplet_loss(anchors, anchors.detach().unsqueeze(1), -anchors.detach().unsqueeze(1), 0.7)
    loss.backward()
    assert loss == 0
    assert not anchors.grad.any()


def test_in_batch_positives():
    positives = in_batch_positives(torch.tensor([7, 3, 7, 3, 7, 3]))
    assert positives.tolist() == [[2, 4], [3, 5], [0, 4], [1, 5], [0, 2], [1, 3]]
    for labels in ([1, 1, 2], [1, 2], []):
        with pytest.raises(ValueError, match="same number"):
            in_batch_positives(torch.tensor(labels))


@given(
    sizes=st.lists(st.integers(1, 13), min_size=1, max_size=12).filter(lambda sizes: max(sizes) >= 3),
    group=st.integers(2, 3),
    seed=st.integers(0, 100),
)
def test_an_epoch_of_queries_is_balanced(sizes, group, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    queries = class_balanced_queries(labels, np.random.default_rng(seed), samples_per_class=group)
    kept = [size for size in sizes if size >= group]
    rounds = min(kept) // group
    assert len(queries) == len(set(queries)) == rounds * group * len(kept)
    groups = labels[queries].reshape(rounds, len(kept), group)
    assert (groups == groups[:, :, :1]).all()
    for visited in groups[:, :, 0]:
        assert len(set(visited)) == len(kept)


def test_epochs_differ_and_a_limit_cuts():
    labels = np.repeat(np.arange(10), 9)
    epochs = [class_balanced_queries(labels, np.random.default_rng(seed)) for seed in (0, 1, 0)]
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(epochs[0], epochs[2])
    limited = class_balanced_queries(labels, np.random.default_rng(0), limit=12)
    assert np.array_equal(limited, epochs[0][:12])
    with pytest.raises(DataError, match="4 images or more"):
        class_balanced_queries(np.arange(5), np.random.default_rng(0))


@given(seed=st.integers(0, 50), dim=st.sampled_from([2, 3, 16, 128]))
def test_weights_are_chances_of_other_classes_alone(seed, dim):
    query, pool = unit(5, dim, seed=seed), unit(12, dim, seed=seed + 1)
    labels = torch.arange(5), torch.arange(12) % 6
    weights = distance_weights(query, pool, *labels)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    same = labels[0][:, None] == labels[1][None, :]
    assert (weights[same] == 0).all()
    assert (weights[~same] > 0).all()


def test_weights_follow_the_density_of_distances_on_the_sphere():
    dim = 8
    angles = torch.linspace(0.6, 2.5, 9, dtype=torch.float64)
    pool = torch.zeros(9, dim, dtype=torch.float64)
    pool[:, 0], pool[:, 1] = angles.cos(), angles.sin()
    query = torch.eye(dim, dtype=torch.float64)[:1]
    weights = distance_weights(query, pool, torch.zeros(1), torch.ones(9))[0]
    distance = 2 * (angles / 2).sin()
    density = distance ** (dim - 2) * (1 - distance**2 / 4) ** ((dim - 3) / 2)
    expected = 1 / density / (1 / density).max() + 1e-6
    torch.testing.assert_close(weights, expected / expected.sum())


def test_the_very_near_and_the_opposite():
    query = unit(1, 16)
    pool = torch.cat([query, normalize(query + 0.05 * unit(1, 16, seed=3), dim=1), -query, unit(4, 16, seed=1)])
    weights = distance_weights(query, pool, torch.zeros(1), torch.ones(7))[0]
    assert weights.isfinite().all()
    assert weights[0] == weights[1], "all distances below 0.5 count as 0.5"


def test_negatives_are_drawn_as_often_as_their_weights_say():
    query, pool = unit(1, 4), unit(8, 4, seed=1)
    labels = torch.zeros(1), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    weights = distance_weights(query, pool, *labels)[0].numpy()
    draws = 20_000
    mined = mine_negatives(
        query.expand(draws, -1), pool, np.zeros(draws), labels[1].numpy(), 2, np.random.default_rng(0)
    )
    assert (mined[:, 0] != mined[:, 1]).all()
    first = np.bincount(mined[:, 0], minlength=8) / draws
    error = np.sqrt(weights * (1 - weights) / draws)
    assert (np.abs(first - weights) <= 4 * error).all()
    # Without replacement: the second draw follows the weights of what is left.
    second = np.zeros(8)
    for i in np.flatnonzero(weights):
        left = np.where(np.arange(8) == i, 0, weights)
        second += weights[i] * left / left.sum()
    observed = np.bincount(mined[:, 1], minlength=8) / draws
    assert (np.abs(observed - second) <= 4 * np.sqrt(second * (1 - second) / draws) + 1e-9).all()


def test_more_negatives_than_other_classes_have():
    with pytest.raises(UserError, match="<= 3"):
        mine_negatives(unit(1, 4), unit(5, 4), np.zeros(1), np.array([0, 0, 1, 1, 1]), 4, np.random.default_rng(0))


@pytest.mark.parametrize(("query_limit", "pool_limit"), [(8000, 20000), (12, 20), (12, 1000)])
def test_a_planned_epoch_has_no_false_negatives(query_limit, pool_limit):
    sizes = [3, 8, 9, 6, 5, 7]
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(6), sizes))
    vectors = normalize(unit(6, 16)[torch.from_numpy(labels)] + 0.05 * unit(38, 16, seed=1), dim=1)
    asked = []

    def embed(indices: np.ndarray) -> Tensor:
        asked.extend(indices)
        return vectors[torch.from_numpy(indices)]

    generator = np.random.default_rng(0)
    limits = {"query_limit": query_limit, "pool_limit": pool_limit}
    epoch = plan_triplet_epoch(labels, embed, generator, negatives=3, **limits)
    assert epoch.negatives.shape == (len(epoch.queries), 3)
    assert not (labels[epoch.negatives] == labels[epoch.queries][:, None]).any()
    assert len(asked) == len(set(asked)), "no image is embedded twice"
    assert set(epoch.queries) | set(epoch.negatives.ravel()) <= set(asked)


def test_the_published_faults_are_in_the_paper_mode_alone():
    labels = np.repeat(np.arange(6), 8)
    vectors = normalize(unit(6, 16)[torch.from_numpy(labels)] + 0.01 * unit(48, 16, seed=1), dim=1)
    plans = {
        paper: plan_triplet_epoch(labels, lambda i: vectors[torch.from_numpy(i)], np.random.RandomState(0), paper=paper)
        for paper in (True, False)
    }
    false = {paper: (labels[p.negatives] == labels[p.queries][:, None]).mean() for paper, p in plans.items()}
    assert false[False] == 0
    assert false[True] > 0.5
    assert np.array_equal(plans[True].queries, plans[False].queries)
