"""Retrieval metrics over exact rankings, without sorting the gallery where that can be avoided.

Every metric is a function of the ranks of a query's positives, and the rank of an item is the number of items
scored higher (or equally, with a lower gallery index). Ignored items and the query's own image are not ranked.
Definitions: `docs/how_metrics_are_computed.md`. All values are fractions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from subnetbench.harness.core.errors import DataError, UserError, unknown
from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.data.splits import Split
from subnetbench.harness.evaluation import ranking
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.search import (
    Similarity,
    check_k,
    comparable,
    score_blocks,
)

DEFAULT_METRICS = (
    "recall_at_1",
    "recall_at_2",
    "recall_at_4",
    "recall_at_8",
    "r_precision",
    "map_at_r",
    "map",
    "map_trapezoid",
)

PerQuery = dict[str, np.ndarray]


def retrieval_metrics(
    query: torch.Tensor,
    gallery: torch.Tensor,
    relevance: Relevance,
    metrics: Sequence[str] | None = None,
    *,
    similarity: Similarity = "cosine",
) -> dict[str, float]:
    """The named metrics, averaged over the queries that have positives, and how many queries those are.

    `query` (q, d) and `gallery` (g, d) are float embeddings on one device; without `metrics`, those of
    `DEFAULT_METRICS` whose k fits the gallery. Raises `UserError` for unknown metrics and for a k that is larger
    than the gallery, `DataError` when no query has a positive.
    """
    return average(retrieval_per_query(query, gallery, relevance, metrics, similarity=similarity))


def retrieval_per_query(
    query: torch.Tensor,
    gallery: torch.Tensor,
    relevance: Relevance,
    metrics: Sequence[str] | None = None,
    *,
    similarity: Similarity = "cosine",
) -> PerQuery:
    """As `retrieval_metrics`, but float64 (q,) a metric, with NaN for queries without positives."""
    query, gallery = comparable(query, gallery, similarity)
    _check_sizes(len(query), len(gallery), relevance)

    def blocks(queries: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        return score_blocks(query, gallery, torch.from_numpy(queries).to(query.device))

    return _per_query(blocks, relevance, _formulas(metrics, relevance))


def split_metrics(
    query: torch.Tensor, gallery: torch.Tensor, split: Split, metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """The metrics of `split_outcomes`, without the values by query."""
    return split_outcomes(query, gallery, split, metrics)[0]


def split_outcomes(
    query: torch.Tensor, gallery: torch.Tensor, split: Split, metrics: Sequence[str] | None = None
) -> tuple[dict[str, float], PerQuery]:
    """The metrics of a split's queries in its gallery, in every setting in which it is scored; and each by query.

    Without `metrics`, those that the split names, else `DEFAULT_METRICS`, as far as their k fits the gallery.
    """
    found_metrics: dict[str, float] = {}
    by_query: PerQuery = {}
    for prefix, relevance in Relevance.settings(split).items():
        names = metrics or [name for name in split.metrics if (parse_metric(name)[1] or 0) <= _most(relevance)]
        found = retrieval_per_query(query, gallery, relevance, names or None)
        found_metrics |= {prefix + name: value for name, value in average(found).items()}
        by_query |= {prefix + name: values for name, values in found.items()}
    return found_metrics, by_query


def average(per_query: PerQuery) -> dict[str, float]:
    """Means over the queries with positives, with the numbers of queries with and without."""
    dropped = np.isnan(next(iter(per_query.values())))
    if dropped.all():
        raise DataError("no query has a positive in the gallery")
    means = {name: float(values[~dropped].mean()) for name, values in per_query.items()}
    return {**means, "queries": float((~dropped).sum()), "queries_without_positives": float(dropped.sum())}


@dataclass(frozen=True)
class _Hits:
    """The positives of some queries: sorted 0-based `ranks` (b, m), of which the first `counts` (b,) are real."""

    ranks: np.ndarray
    counts: np.ndarray

    @cached_property
    def real(self) -> np.ndarray:
        return np.arange(self.ranks.shape[1]) < self.counts[:, None]

    @cached_property
    def precision(self) -> np.ndarray:
        """Precision at each positive, 0 in the padding."""
        result: np.ndarray = (np.arange(self.ranks.shape[1]) + 1) / (self.ranks + 1) * self.real
        return result

    @cached_property
    def trapezoid(self) -> np.ndarray:
        """Mean of the precisions at each positive and just before it (1 at the first rank)."""
        before = np.where(self.ranks == 0, 1, np.arange(self.ranks.shape[1]) / np.maximum(self.ranks, 1))
        result: np.ndarray = (self.precision + before * self.real) / 2
        return result

    def among(self, first: np.ndarray | int) -> np.ndarray:
        """Which positives are among the `first` ranks: bool (b, m)."""
        return self.real & (self.ranks < np.reshape(first, (-1, 1)))

    def oxford(self, k: int) -> np.ndarray:
        depth = np.minimum(np.take_along_axis(self.ranks, self.counts[:, None] - 1, 1)[:, 0] + 1, k)
        result: np.ndarray = self.among(depth).sum(1) / depth
        return result

    def over_hits(self, k: int) -> np.ndarray:
        hits = self.among(k)
        result: np.ndarray = (self.precision * hits).sum(1) / np.maximum(hits.sum(1), 1)
        return result


# What each metric looks at: the whole ranking, the first R ranks (R = number of positives), or the first k.
_FORMULAS: dict[str, tuple[Literal["all", "r", "k"], Callable[[_Hits, int], np.ndarray]]] = {
    "recall_at_k": ("k", lambda h, k: h.among(k).sum(1) > 0),
    "precision_at_k": ("k", lambda h, k: h.among(k).sum(1) / k),
    "precision_oxford_at_k": ("k", _Hits.oxford),
    "r_precision": ("r", lambda h, _: h.among(h.counts).sum(1) / h.counts),
    "map_at_r": ("r", lambda h, _: (h.precision * h.among(h.counts)).sum(1) / h.counts),
    "map": ("all", lambda h, _: h.precision.sum(1) / h.counts),
    "map_trapezoid": ("all", lambda h, _: h.trapezoid.sum(1) / h.counts),
    "map_at_k": ("k", lambda h, k: (h.precision * h.among(k)).sum(1) / np.minimum(h.counts, k)),
    "map_trapezoid_at_k": ("k", lambda h, k: (h.trapezoid * h.among(k)).sum(1) / np.minimum(h.counts, k)),
    "map_over_hits_at_k": ("k", _Hits.over_hits),
}


@dataclass(frozen=True)
class _Formula:
    name: str
    key: str
    k: int

    def depth(self, positives: int, gallery_size: int) -> int:
        """How many first ranks have to be known."""
        return {"all": gallery_size, "r": positives, "k": self.k}[_FORMULAS[self.key][0]]

    def __call__(self, hits: _Hits) -> np.ndarray:
        return _FORMULAS[self.key][1](hits, self.k)


def _formulas(names: Sequence[str] | None, relevance: Relevance) -> list[_Formula]:
    most = _most(relevance)
    formulas = []
    for name in names or DEFAULT_METRICS:
        metric, k = parse_metric(name)
        if metric.name not in _FORMULAS:
            raise unknown("retrieval metric", name, _FORMULAS)
        if k is not None:
            if k > most and not names:
                continue
            check_k(k, most)
        formulas.append(_Formula(name, metric.name, k or 0))
    return formulas


def _most(relevance: Relevance) -> int:
    """The largest k: the number of items in a ranking."""
    return relevance.gallery_size - (relevance.own is not None)


def _per_query(
    blocks: Callable[[np.ndarray], Iterator[tuple[slice, torch.Tensor]]],
    relevance: Relevance,
    formulas: Sequence[_Formula],
) -> PerQuery:
    """`blocks` yields the scores of given queries, a slice of them at a time; it lets them be overwritten."""
    counts = relevance.counts
    values = {formula.name: np.full(len(counts), np.nan) for formula in formulas}
    # Queries with about equally many positives share a block: little padding, and the cheapest way to rank them.
    queries = np.argsort(counts, kind="stable")
    queries = queries[counts[queries] > 0]
    for part, scores in blocks(queries):
        rows = queries[part]
        relevance.hide_ignored(scores, rows)
        items = torch.from_numpy(relevance.positives(rows)).to(scores.device)
        hits = _Hits(np.sort(ranking.ranks(scores, items).cpu().numpy(), axis=1), counts[rows])
        for formula in formulas:
            values[formula.name][rows] = formula(hits)
    return values


def _check_sizes(queries: int, items: int, relevance: Relevance) -> None:
    expected = (len(relevance), relevance.gallery_size)
    if (queries, items) != expected:
        raise UserError(
            "numbers of queries and gallery items do not fit the relevance",
            field="embeddings",
            value=(queries, items),
            allowed=expected,
        )
