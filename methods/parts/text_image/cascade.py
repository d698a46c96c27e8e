"""Cascades of bi-encoders for text-to-image search: cheap levels choose the images that expensive levels encode.

Hoenig, Ackermann and Chi, "Bi-Encoder Cascades for Efficient Image Search" (arXiv 2303.15595). Level 0 encodes all
images once; each later level encodes only what the levels before it hand on, and keeps it for all later queries.

Queries may be searched in batches of any size: rankings, encoded images, and which query paid for which image are
the same as one by one. A float32 matrix product proposes the candidates of level 0; wherever its rounding could
change an answer, scores are summed in float64, row by row, and ties go to the lower image index.
"""

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from subnetbench.harness.method import Backend, RunFailure, UserError, score_blocks

SLACK = 16  # proposals beyond the width of level 0, among which float64 decides
BLOCK = 2**18  # most numbers scored in float64 at once: 2 MiB stay in the cache, which is five times as fast


@dataclass(frozen=True)
class Level:
    """One bi-encoder: an image encoder and the text encoder of the same space.

    `embed_images` takes image indices int64 (b,), `embed_texts` takes queries; both return embeddings (b, d), not
    necessarily normalised. The identities must determine the embeddings completely: levels with the same
    `image_encoder` share one cache, and a query is encoded once for all levels with the same `text_encoder`.
    """

    image_encoder: str
    text_encoder: str
    embed_images: Callable[[np.ndarray], Tensor]
    embed_texts: Callable[[Sequence[Any]], Tensor]


@dataclass(frozen=True)
class Answers:
    """What a search found and what it cost, in the order of the queries.

    `ranking` (queries, k) holds image indices, best first. `image_encodes` and `text_encodes` (queries, levels) count
    what each query had to encode, `seconds` (queries,) is wall time, spread evenly over a batch.
    """

    ranking: np.ndarray
    image_encodes: np.ndarray
    text_encodes: np.ndarray
    seconds: np.ndarray


class Cascade:
    """Levels over one collection of `size` images, with caches that live as long as the object.

    Unit vectors are held in float32 on `device`. `backend` makes the matrix product of level 0; the answers do not
    depend on it. Encoders are called with at most `encode_batch` images.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        size: int,
        *,
        device: torch.device | str = "cpu",
        backend: Backend = "torch",
        encode_batch: int = 256,
    ) -> None:
        if not levels:
            raise UserError("a cascade needs at least one level", field="levels")
        if size < 1:
            raise UserError("there are no images to search", field="size", value=size)
        self.levels = tuple(levels)
        self.size = size
        self.device = torch.device(device)
        self.backend = backend
        self.encode_batch = encode_batch
        self._stores: dict[str, _Store] = {}
        self._index: Any = None

    def build(self) -> np.ndarray:
        """Forget everything and encode all images with level 0; returns the encodes of each level (levels,)."""
        self._stores = {}
        stores = {level.image_encoder: _Store(self.size, self.device) for level in self.levels}
        base = stores[self.levels[0].image_encoder]
        self._encode(self.levels[0], base, np.arange(self.size))
        self._index = _faiss_index(base.vectors) if self.backend == "faiss" else None
        self._stores = stores
        return np.array([self.size] + [0] * (len(self.levels) - 1))

    def forget(self) -> None:
        """Empty the caches of all later levels, as if no query had been asked yet."""
        first = self.levels[0].image_encoder
        for encoder in self._stores.keys() - {first}:
            self._stores[encoder] = _Store(self.size, self.device)

    def search(self, queries: Sequence[Any], *, k: int, m: Sequence[int] = (), batch: int = 256) -> Answers:
        """The `k` best images for each query; level j hands `m[j]` candidates on to level j + 1.

        The final order is that of the last level alone.

        Raises:
            UserError: Unless m has one width for each level but the last and size >= m[0] >= m[1] >= ... >= k >= 1;
                nothing is clipped.
        """
        widths = self._checked_widths(m, k)
        parts = []
        for start in range(0, len(queries), batch):
            began = time.perf_counter()
            ranking, images, texts = self._search_batch(queries[start : start + batch], widths)
            seconds = np.full(len(ranking), (time.perf_counter() - began) / len(ranking))
            parts.append((ranking, images, texts, seconds))
        if not parts:
            raise UserError("at least one query is needed", field="queries")
        return Answers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _store(self, level: int) -> "_Store":
        if not self._stores:
            raise UserError("call build() first: level 0 has not encoded the images")
        return self._stores[self.levels[level].image_encoder]

    def _checked_widths(self, m: Sequence[int], k: int) -> list[int]:
        levels = len(self.levels)
        if len(m) != levels - 1:
            raise UserError(f"a cascade of {levels} levels needs {levels - 1} widths", field="m", value=list(m))
        widths = [*map(operator.index, m), operator.index(k)]
        if any(wide < narrow for wide, narrow in zip([self.size, *widths], widths, strict=False)) or k < 1:
            allowed = f"{self.size} >= m[0] >= m[1] >= ... >= k >= 1"
            raise UserError("each level must hand on no more than it gets", field="m, k", value=widths, allowed=allowed)
        return widths

    def _search_batch(self, queries: Sequence[Any], widths: list[int]) -> tuple[np.ndarray, ...]:
        image_encodes = np.zeros((len(queries), len(widths)), dtype=np.int64)
        text_encodes = np.zeros_like(image_encodes)
        texts: dict[str, Tensor] = {}
        candidates = torch.empty(0)
        for number, (level, width) in enumerate(zip(self.levels, widths, strict=True)):
            store = self._store(number)
            if level.text_encoder not in texts:
                texts[level.text_encoder] = _unit_vectors(level.embed_texts(queries), self.device)
                text_encodes[:, number] = 1
            if number > 0:
                image_encodes[:, number] = self._encode_missing(level, store, candidates)
            text, expected = texts[level.text_encoder], (len(queries), store.vectors.shape[1])
            if text.shape != expected:
                raise UserError(
                    "texts and images are in different spaces",
                    field=f"level {number}",
                    value=tuple(text.shape),
                    allowed=expected,
                )
            if number == 0:
                candidates = self._best_of_all(text, width, ordered=len(widths) == 1)
            else:
                candidates = _best(_exact_scores(store, candidates, text), candidates, width)
        return candidates.cpu().numpy(), image_encodes, text_encodes

    def _encode(self, level: Level, store: "_Store", indices: np.ndarray) -> None:
        for start in range(0, len(indices), self.encode_batch):
            part = indices[start : start + self.encode_batch]
            store.add(part, _unit_vectors(level.embed_images(part), self.device))

    def _encode_missing(self, level: Level, store: "_Store", candidates: Tensor) -> np.ndarray:
        """Encode what `level` does not hold, each image for the first query that needs it; counts a query."""
        flat = candidates.flatten().cpu().numpy()
        missing = np.flatnonzero(~store.known()[flat])
        _, first = np.unique(flat[missing], return_index=True)
        positions = missing[np.sort(first)]
        self._encode(level, store, flat[positions])
        return np.bincount(positions // candidates.shape[1], minlength=len(candidates))

    def _best_of_all(self, texts: Tensor, width: int, *, ordered: bool) -> Tensor:
        """The `width` best images of level 0 for each text, (queries, width), in order where that matters."""
        store = self._store(0)
        rounding = _rounding(texts.shape[1])
        rough, proposed = self._propose(store.vectors, texts, min(width + SLACK, self.size))
        best = proposed[:, :width].clone()
        everything = proposed.shape[1] == self.size
        if ordered or everything:
            unsure = torch.arange(len(texts), device=self.device)
        else:
            unsure = (rough[:, width - 1] - rough[:, width] <= 2 * rounding).nonzero().flatten()
        if len(unsure):
            scores = _exact_scores(store, proposed[unsure], texts[unsure])
            best[unsure] = _best(scores, proposed[unsure], width)
            # what was not proposed scores at most the last proposal, but for rounding
            worst_taken = scores.topk(width, dim=1).values[:, -1]
            open_ended = worst_taken <= rough[unsure, -1].double() + rounding
            for row in unsure[open_ended & (not everything)].tolist():
                best[row] = _decide(store, texts[row : row + 1], width)
        return best

    def _propose(self, vectors: Tensor, texts: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Float32 scores and images of the `count` best of level 0, whose rows are in the order of the images."""
        if self._index is not None:
            scores, images = self._index.search(texts.cpu().numpy(), count)
            return torch.from_numpy(scores).to(self.device), torch.from_numpy(images).to(self.device)
        parts = [block.topk(count, dim=1) for _, block in score_blocks(texts, vectors)]
        return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


class _Store:
    """Unit vectors (rows in order of arrival) of the images that one encoder has seen."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.row_of = torch.full((size,), -1, dtype=torch.int64, device=device)
        self.vectors = torch.empty(0, 0, device=device)
        self.count = 0
        self._rows = torch.empty(0, 0, device=device)

    def known(self) -> np.ndarray:
        """Which images are held, bool (size,)."""
        return (self.row_of >= 0).cpu().numpy()

    def add(self, indices: np.ndarray, vectors: Tensor) -> None:
        """Hold unit vectors (b, d) of the images at `indices` (b,), which are not held yet."""
        end = self.count + len(indices)
        if end > len(self._rows):
            capacity = min(max(end, 2 * len(self._rows)), len(self.row_of))
            grown = vectors.new_empty(capacity, vectors.shape[1])
            if self.count:
                grown[: self.count] = self._rows[: self.count]
            self._rows = grown
        self._rows[self.count : end] = vectors
        self.row_of[torch.from_numpy(indices).to(self.row_of.device)] = torch.arange(
            self.count, end, device=self.row_of.device
        )
        self.count = end
        self.vectors = self._rows[:end]


def _unit_vectors(embeddings: Tensor, device: torch.device) -> Tensor:
    vectors = F.normalize(embeddings.detach().to(device, torch.float32), dim=1)
    if not torch.isfinite(vectors).all():
        raise RunFailure("an encoder returned numbers that are not finite", reason="nan")
    return vectors


def _exact_scores(store: _Store, candidates: Tensor, texts: Tensor) -> Tensor:
    """Cosines (queries, candidates) in float64; each is summed alone, so it depends on nothing else."""
    columns = max(1, BLOCK // texts.shape[1])
    if candidates.shape[1] > columns:
        return torch.cat([_exact_scores(store, part, texts) for part in torch.split(candidates, columns, dim=1)], dim=1)
    block = columns // candidates.shape[1]
    scores = []
    for rows, text in zip(torch.split(candidates, block), torch.split(texts, block), strict=True):
        vectors = store.vectors[store.row_of[rows]].double()
        scores.append(vectors.mul_(text.double()[:, None]).sum(dim=2))
    return torch.cat(scores)


def _best(scores: Tensor, candidates: Tensor, width: int) -> Tensor:
    """The `width` best candidates of each query in descending score, ties by index."""
    by_index = candidates.argsort(dim=1)
    candidates, scores = candidates.gather(1, by_index), scores.gather(1, by_index)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :width]
    return candidates.gather(1, order)


def _decide(store: _Store, text: Tensor, width: int) -> Tensor:
    """The best images for one text among all, where float32 could not tell: all that might belong are scored."""
    rough = (text @ store.vectors.T)[0]
    threshold = rough.topk(width).values[-1] - 2 * _rounding(text.shape[1])
    candidates = (rough >= threshold).nonzero().T
    return _best(_exact_scores(store, candidates, text), candidates, width)[0]


def _rounding(width: int) -> float:
    """Bound on the error of a dot product of two unit vectors of `width` numbers, as torch is set to compute it."""
    precise = torch.get_float32_matmul_precision() == "highest"
    return 1.01 * (width + 2) * 2.0 ** (-24 if precise else -8)


def _faiss_index(vectors: Tensor) -> Any:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.cpu().numpy())
    return index
