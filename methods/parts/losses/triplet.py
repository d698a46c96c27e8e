"""Triplets: the loss, epochs of class-balanced queries, and distance-weighted negatives.

Sources: triplet loss with squared distances (Schroff et al. 2015); distance-weighted sampling (Wu et al. 2017);
the plan of an epoch from the published code of Suma and Tolias (2023).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from subnetbench.harness.method import DataError, UserError

Generator = np.random.Generator | np.random.RandomState
Embed = Callable[[np.ndarray], Tensor]

_NEAREST = 0.5
_FARTHEST = 2 - 1e-3


def triplet_loss(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    margin: float = 0.7,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """max(0, |a - p|^2 - |a - n|^2 + margin), averaged over all pairs (p, n) of an anchor, zeros included.

    `anchors` (b, d), `positives` (b, p, d), `negatives` (b, n, d); gradients flow into all three. `reduction` is
    over the anchors.
    """
    anchors = anchors.unsqueeze(1)
    positive = (anchors - positives).square().sum(dim=-1)
    negative = (anchors - negatives).square().sum(dim=-1)
    per_anchor = F.relu(positive.unsqueeze(2) - negative.unsqueeze(1) + margin).mean(dim=(1, 2))
    return per_anchor.mean() if reduction == "mean" else per_anchor.sum()


@dataclass(frozen=True)
class TripletEpoch:
    """One epoch: the queries in order, in groups of one class, and the negatives of each.

    Both are indices into the split, of shapes (q,) and (q, n).
    """

    queries: np.ndarray
    negatives: np.ndarray


def class_balanced_queries(
    labels: np.ndarray, generator: Generator, *, samples_per_class: int = 4, limit: int | None = None
) -> np.ndarray:
    """Indices of one epoch's queries: each consecutive group of `samples_per_class` is of one class.

    Every class gives as many images as the smallest one can in whole groups, drawn anew; classes with fewer than
    `samples_per_class` are left out. A round visits all classes in random order and takes one group of each;
    rounds follow each other until all images, or `limit` of them, are used.

    Args:
        labels: Those of the split, (n,).
        generator: What is drawn from.
        samples_per_class: Images of a group.
        limit: Most queries; None: all.

    Raises:
        DataError: When no class is left.
    """
    members = _members_by_class(labels, samples_per_class)
    per_class = min(map(len, members)) // samples_per_class * samples_per_class
    drawn = np.stack([generator.permutation(indices)[:per_class] for indices in members])
    generator.shuffle(drawn)
    rounds = drawn.reshape(len(members), -1, samples_per_class).swapaxes(0, 1)
    return rounds.reshape(-1)[:limit]


def plan_triplet_epoch(
    labels: np.ndarray,
    embed: Embed,
    generator: Generator,
    *,
    samples_per_class: int = 4,
    query_limit: int = 8000,
    pool_limit: int = 20000,
    negatives: int = 4,
    paper: bool = False,
) -> TripletEpoch:
    """Class-balanced queries, with negatives mined in a random pool by the network as it is now.

    With `paper` the draws are those of the published code, with its faults: small classes are left out altogether;
    images of the query's class, itself included, keep a small chance of being its negatives; and when pool and queries
    together are 1.1 times the data or more, the i-th query is taken to have the label of the i-th image.

    Args:
        labels: Those of the split, (n,). Images of classes that are too small to be queries serve as negatives.
        embed: From indices (m,) to unit embeddings (m, d).
        generator: What is drawn from; a `RandomState` with `paper`.
        samples_per_class: Images of a class in a group of queries.
        query_limit: Most queries.
        pool_limit: Most images that negatives are drawn from.
        negatives: Negatives of each query.
        paper: Draw as the published code does.

    Raises:
        DataError: When no class is large enough.
        UserError: When the pool holds fewer negatives of some query than wanted.
    """
    if paper:
        usable = np.sort(np.concatenate(_members_by_class(labels, samples_per_class)))
    else:
        usable = np.arange(len(labels))
    labels = labels[usable]
    queries = class_balanced_queries(
        labels, generator, samples_per_class=samples_per_class, limit=min(query_limit, len(labels))
    )
    pool = generator.permutation(len(labels))[:pool_limit]
    wanted, positions = np.unique(np.concatenate([queries, pool]), return_inverse=True)
    embeddings = embed(usable[wanted])
    at_queries, at_pool = torch.split(torch.from_numpy(positions), [len(queries), len(pool)])
    mislabelled = paper and len(queries) + len(pool) >= 1.1 * len(labels)
    mined = mine_negatives(
        embeddings[at_queries],
        embeddings[at_pool],
        labels[: len(queries)] if mislabelled else labels[queries],
        labels[pool],
        negatives,
        generator,
        paper=paper,
    )
    return TripletEpoch(usable[queries], usable[pool[mined]])


def mine_negatives(
    query: Tensor,
    pool: Tensor,
    query_labels: np.ndarray,
    pool_labels: np.ndarray,
    count: int,
    generator: Generator,
    *,
    paper: bool = False,
    chunk: int = 256,
) -> np.ndarray:
    """For each query, `count` positions in the pool, drawn without replacement by `distance_weights`: (q, count).

    `query` (q, d) and `pool` (m, d) are unit vectors; `chunk` queries are weighed at a time, which changes nothing
    but memory.

    Raises:
        UserError: When a query has fewer than `count` images of other classes to draw from.
    """
    of_query, of_pool = torch.as_tensor(query_labels), torch.as_tensor(pool_labels)
    rows = []
    for start in range(0, len(query), chunk):
        part = slice(start, start + chunk)
        weights = distance_weights(query[part], pool, of_query[part], of_pool, paper=paper)
        fewest = int((weights > 0).sum(dim=1).min())
        if fewest < count:
            raise UserError(
                "more than the pool has for some query", field="negatives", value=count, allowed=f"<= {fewest}"
            )
        rows.append(_draw_in_turn(weights, count, generator) if paper else _draw(weights, count, generator))
    return np.concatenate(rows)


def distance_weights(
    query: Tensor, pool: Tensor, query_labels: Tensor, pool_labels: Tensor, *, paper: bool = False
) -> Tensor:
    """The chance of each pool image to be drawn as a query's negative: (q, m), rows of sum 1.

    Proportional to the inverse density of distances between random points on the sphere, with distances below 0.5
    taken as 0.5 (Wu et al. 2017, equation 4), relative to the largest of the row, plus 1e-6. Images of the
    query's own class have no chance; with `paper` they keep the 1e-6, and points at distance 2 give NaN.
    """
    dim = query.shape[1]
    distance = (2 - 2 * query @ pool.T).clamp(min=0).sqrt().clamp(min=_NEAREST)
    if not paper:
        distance = distance.clamp(max=_FARTHEST)
    log_weight = (2 - dim) * distance.log() - (dim - 3) / 2 * torch.log1p(-distance.square() / 4)
    same = query_labels.to(query.device)[:, None] == pool_labels.to(query.device)[None, :]
    log_weight = log_weight.masked_fill(same, 0.0 if paper else -torch.inf)
    largest = log_weight.amax(dim=1, keepdim=True)
    weight = (log_weight - largest).exp().masked_fill(same, 0.0) + 1e-6
    if not paper:
        weight = weight.masked_fill(same, 0.0)
    return weight / weight.sum(dim=1, keepdim=True)


def _members_by_class(labels: np.ndarray, at_least: int) -> list[np.ndarray]:
    """The indices of each class that is large enough, in the order in which the classes first appear."""
    classes, first = np.unique(labels, return_index=True)
    members = [np.flatnonzero(labels == label) for label in classes[np.argsort(first)]]
    members = [indices for indices in members if len(indices) >= at_least]
    if not members:
        raise DataError(f"no class has {at_least} images or more")
    return members


def _draw(weights: Tensor, count: int, generator: Generator) -> np.ndarray:
    """Successive draws without replacement for all rows at once (Gumbel top-k; Efraimidis and Spirakis 2006)."""
    uniform = torch.from_numpy(generator.random(weights.shape)).to(weights.device)
    return (uniform.log() / weights.double()).topk(count, dim=1).indices.cpu().numpy()


def _draw_in_turn(weights: Tensor, count: int, generator: Generator) -> np.ndarray:
    """The same distribution, consuming a NumPy generator row by row as the published code does."""
    size = weights.shape[1]
    return np.stack([generator.choice(size, count, p=row, replace=False) for row in weights.cpu().numpy()])
