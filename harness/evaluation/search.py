"""Exact nearest neighbours of query embeddings among gallery embeddings, in bounded memory.

Embeddings are float tensors (n, dimensions) of a query and a gallery set on one device; they are compared in
float32. Of equally similar gallery items the one with the lower index comes first.
"""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from subnetbench.harness.core.errors import RunFailure, UserError
from subnetbench.harness.evaluation.ranking import best

Similarity = Literal["cosine", "dot", "euclidean"]
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "euclidean")
Backend = Literal["torch", "faiss"]

BLOCK_BYTES = 128 * 2**20


def comparable(
    query: torch.Tensor, gallery: torch.Tensor, similarity: Similarity = "cosine"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 query (q, d') and gallery (g, d') whose dot products order the gallery by `similarity`.

    Raises `UserError` for shapes that do not fit, `RunFailure` (reason `nan`) for values that are not finite.
    """
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise UserError(
            "query and gallery must be (n, dimensions) with the same dimensions",
            field="embeddings",
            value=(tuple(query.shape), tuple(gallery.shape)),
        )
    if similarity not in SIMILARITIES:
        raise UserError("no such similarity", field="similarity", value=similarity, allowed=", ".join(SIMILARITIES))
    same = query is gallery
    query, gallery = query.detach().float(), gallery.detach().float()
    for name, embeddings in (("query", query), ("gallery", gallery)):
        if not torch.isfinite(embeddings).all():
            raise RunFailure(f"{name} embeddings hold values that are not finite", reason="nan")
    if similarity == "cosine":
        gallery = functional.normalize(gallery, dim=1)
        query = gallery if same else functional.normalize(query, dim=1)
    elif similarity == "euclidean":
        # |q - x|^2 = |q|^2 - 2 (q.x - |x|^2 / 2), and |q|^2 does not change a query's order.
        gallery = torch.cat([gallery, gallery.square().sum(1, keepdim=True) / -2], dim=1)
        query = torch.cat([query, query.new_ones(len(query), 1)], dim=1)
    return query, gallery


def score_blocks(
    query: torch.Tensor, gallery: torch.Tensor, rows: torch.Tensor | None = None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Dot products of the queries (or of those at `rows`) with the gallery, block by block.

    Yields a slice of the queries and their scores (b, g), which are overwritten after the next block. On a CPU with
    several threads the next block is computed while the caller works on this one, which rarely keeps them all busy.
    """
    count = len(query) if rows is None else len(rows)
    size = max(1, min(count, BLOCK_BYTES // (4 * max(1, len(gallery)))))
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    threads = torch.get_num_threads()
    ahead = gallery.device.type == "cpu" and threads > 1 and len(parts) > 1
    buffers = [torch.empty(size, len(gallery), device=gallery.device) for _ in range(1 + ahead)]

    def compute(number: int) -> torch.Tensor:
        part = parts[number]
        chosen = query[part] if rows is None else query[rows[part]]
        return torch.mm(chosen, gallery.T, out=buffers[number % len(buffers)][: len(chosen)])

    if not ahead:
        for number, part in enumerate(parts):
            yield part, compute(number)
        return
    # A new thread would take as many cores as there are, not as many as this one was given.
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as worker:
        coming = worker.submit(compute, 0)
        for number, part in enumerate(parts):
            scores = coming.result()
            if number + 1 < len(parts):
                coming = worker.submit(compute, number + 1)
            yield part, scores


def search(
    query: torch.Tensor,
    gallery: torch.Tensor,
    k: int,
    *,
    own: np.ndarray | torch.Tensor | None = None,
    similarity: Similarity = "cosine",
    backend: Backend | None = None,
) -> torch.Tensor:
    """Indices (q, k) int64 of every query's `k` nearest gallery items, nearest first, on the embeddings' device.

    `own[i]` is the gallery index of query i's own image, which is never returned, or -1 where the gallery does not
    hold it. `backend` is chosen by speed unless it is given. Raises `UserError` when `k` is larger than what there
    is to find.
    """
    query, gallery = comparable(query, gallery, similarity)
    mine = None if own is None else torch.as_tensor(own, device=query.device)
    check_k(k, len(gallery) - (mine is not None))
    backend = backend or fastest_backend(len(query), len(gallery), k, query.device)
    if backend == "faiss":
        return _search_faiss(query, gallery, k, mine)
    found = torch.empty(len(query), k, dtype=torch.int64, device=query.device)
    for part, scores in score_blocks(query, gallery):
        hide(scores, None if mine is None else mine[part])
        found[part] = best(scores, k)
    return found


def check_k(k: int, most: int) -> None:
    """Raise `UserError` unless `k` is in 1..`most`, the number of items that a query can find."""
    if not 1 <= k <= most:
        raise UserError(
            "more than the gallery holds beside the query's own image", field="k", value=k, allowed=f"1 to {most}"
        )


def hide(scores: torch.Tensor, own: torch.Tensor | None) -> None:
    """Take the own image of every row (by index, -1: none) out of the ranking."""
    if own is not None:
        rows = (own >= 0).nonzero().squeeze(1)
        scores[rows, own[rows]] = -torch.inf


def fastest_backend(queries: int, items: int, k: int, device: torch.device) -> Backend:
    """faiss where it is installed and faster: on the CPU, for many queries with few neighbours in a large gallery.

    Measured on two CPU threads with 512 dimensions: its tiles stay in the cache, so that it is 1.3 times as fast
    for 20,000 x 20,000 with k = 100; its heaps lose from some hundred neighbours on, its import costs small cases.
    """
    worth_it = device.type == "cpu" and queries * items >= 10**8 and k <= 200
    return "faiss" if worth_it and importlib.util.find_spec("faiss") else "torch"


def _search_faiss(query: torch.Tensor, gallery: torch.Tensor, k: int, own: torch.Tensor | None) -> torch.Tensor:
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.cpu().numpy())
    # One neighbour more shows whether equal scores straddle the boundary; the own image takes a rank of its own.
    wanted = min(k + 1 + (own is not None), len(gallery))
    scores, found = (torch.from_numpy(array).to(query.device) for array in index.search(query.cpu().numpy(), wanted))
    tied = (scores[:, 1:] == scores[:, :-1]).any(dim=1)
    if own is not None:
        # A stable sort moves the own image behind all others and leaves their order alone.
        found = found.gather(1, (found == own[:, None]).to(torch.uint8).sort(dim=1, stable=True).indices)
    found = found[:, :k].contiguous()
    rows = tied.nonzero().squeeze(1)
    for part, block in score_blocks(query, gallery, rows):
        hide(block, None if own is None else own[rows[part]])
        found[rows[part]] = best(block, k)
    return found
