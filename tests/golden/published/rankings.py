"""The formulas of retrieval metrics on rankings that were recorded, where no embeddings are."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.evaluation import retrieval
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.search import BLOCK_BYTES


def per_query_of_order(
    order: np.ndarray, relevance: Relevance, metrics: Sequence[str] | None = None
) -> retrieval.PerQuery:
    """The named metrics of rankings that were made elsewhere, as by a cascade: float64 (q,) each.

    `order` (q, m) are gallery indices, best first, none twice in a row; ignored items and own images may be among
    them. m may be smaller than the gallery, but then only metrics that look at the first ranks are defined. Queries
    without positives are NaN.
    """
    length, gallery_size = order.shape[1], relevance.gallery_size
    retrieval._check_sizes(len(order), gallery_size, relevance)
    formulas = retrieval._formulas(metrics, relevance)
    most = int(relevance.counts.max(initial=0))
    falling = torch.arange(0, -length, -1, dtype=torch.float32)

    def blocks(queries: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        size = max(1, BLOCK_BYTES // (4 * gallery_size))
        for start in range(0, len(queries), size):
            rows = queries[start : start + size]
            scores = torch.full((len(rows), gallery_size), -torch.inf)
            scores.scatter_(1, torch.from_numpy(order[rows]).long(), falling.expand(len(rows), length))
            relevance.hide_ignored(scores, rows)
            ranked = int((scores > -torch.inf).sum(1).min())
            for formula in formulas:
                if length < gallery_size and formula.depth(most, gallery_size) > ranked:
                    raise UserError(f"needs more than the first {ranked} ranks", field="metrics", value=formula.name)
            yield slice(start, start + len(rows)), scores

    return retrieval._per_query(blocks, relevance, formulas)


def metrics_of_order(order: np.ndarray, relevance: Relevance, metrics: Sequence[str] | None = None) -> dict[str, float]:
    """Means of `per_query_of_order` over the queries with positives."""
    return retrieval.average(per_query_of_order(order, relevance, metrics))
