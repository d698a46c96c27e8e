"""What a cascade of finished encoders is measured by: recall, images encoded at each level, costs, latencies.

Embeddings of every level are computed once for the whole collection and kept; the engine then counts which of them a
workload would have made it compute. Only latencies are measured with the encoders themselves.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.context import Context
from subnetbench.harness.data import Split, digest_of
from subnetbench.harness.errors import DataError
from subnetbench.harness.evaluation.cost import mac_metrics, time_metrics
from subnetbench.harness.evaluation.protocols import TIMING_SECONDS
from subnetbench.harness.evaluation.search import Backend
from subnetbench.harness.feature_cache import cached_outputs, weights_digest
from subnetbench.harness.method import Variant
from subnetbench.methods.parts.cascade import Cascade, Level
from subnetbench.methods.parts.cascade_cost import percentiles
from subnetbench.methods.parts.early_exit import EarlyExit, early_exit_levels
from subnetbench.methods.parts.encoders import TextEncoder
from subnetbench.methods.parts.text_search import text_encoder_of
from subnetbench.methods.parts.workloads import Workload, every_image_once, small_world

KS = (1, 5, 10)


@dataclass(frozen=True)
class LevelCost:
    """What encoding one image costs at a level: multiply-accumulates, and seconds in batches of 32."""

    macs: float
    seconds: float


@dataclass(frozen=True)
class WorkloadResult:
    """A workload gone through once by a fresh cascade.

    `recalls` are by k, `fractions` the images that each level encoded over those of the collection (the first is 1),
    `encodes` (queries, levels) what each query made the levels encode.
    """

    recalls: dict[int, float]
    fractions: tuple[float, ...]
    encodes: np.ndarray


class Collection:
    """A split to search in: its captions as queries, and the embeddings of both by every level."""

    def __init__(self, variants: Sequence[Variant], context: Context, split: Split, backend: Backend) -> None:
        if split.captions is None:
            raise DataError(f"{split.name} has no captions to search with")
        self.split, self.variants, self.context, self.backend = split, list(variants), context, backend
        self.texts = sorted({caption for own in split.captions for caption in own})
        self.place = {text: i for i, text in enumerate(self.texts)}
        images: list[list[int]] = [[] for _ in self.texts]
        for image, own in enumerate(split.captions):
            for caption in dict.fromkeys(own):
                images[self.place[caption]].append(image)
        self.answers = [np.array(found) for found in images]
        self.modules = [variant.build().to(context.device) for variant in variants]
        rows: dict[str, Tensor] = {}
        embedded: dict[str, Tensor] = {}
        self.levels = [self._level(v, m, rows, embedded) for v, m in zip(self.variants, self.modules, strict=True)]

    def _level(
        self, variant: Variant, module: nn.Module, rows: dict[str, Tensor], embedded: dict[str, Tensor]
    ) -> Level:
        images = digest_of(weights_digest(module), repr(module), repr(variant.preprocessing))
        if images not in rows:
            rows[images] = cached_outputs(self.context, module, variant.preprocessing, self.split)
        encoder = text_encoder_of(variant)
        if encoder.identity not in embedded:
            embedded[encoder.identity] = _embed_all(encoder, self.texts)
        own, texts = rows[images], embedded[encoder.identity]
        return Level(
            image_encoder=images,
            text_encoder=encoder.identity,
            embed_images=lambda indices: own[torch.from_numpy(indices).to(own.device)],
            embed_texts=lambda queries: texts[[self.place[query] for query in queries]],
        )

    @property
    def size(self) -> int:
        return len(self.split)

    @property
    def ks(self) -> list[int]:
        return [k for k in KS if k <= self.size]

    def cascade(self, levels: Sequence[Level] | None = None) -> Cascade:
        return Cascade(levels or self.levels, self.size, device=self.context.device, backend=self.backend)

    def recalls(self, ranking: np.ndarray, queries: Sequence[str]) -> dict[int, float]:
        """Recall at each k: share of queries with an image of that caption among the first k of `ranking`."""
        wanted = [self.answers[self.place[query]] for query in queries]
        hits = np.stack([np.isin(row, images) for row, images in zip(ranking, wanted, strict=True)])
        return {k: float(hits[:, :k].any(axis=1).mean()) for k in self.ks}

    def all_captions(self, m: Sequence[int], levels: Sequence[Level] | None = None) -> dict[int, float]:
        """Recalls with every caption as a query once."""
        cascade = self.cascade(levels)
        cascade.build()
        return self.recalls(cascade.search(self.texts, k=self.ks[-1], m=m).ranking, self.texts)

    def run(self, workload: Workload, m: Sequence[int]) -> WorkloadResult:
        """Send the queries of a workload through a cascade that knows nothing yet."""
        queries = self.queries(workload)
        cascade = self.cascade()
        encodes = cascade.build().astype(np.float64)
        answers = cascade.search(queries, k=self.ks[-1], m=m)
        fractions = (encodes + answers.image_encodes.sum(axis=0)) / self.size
        return WorkloadResult(self.recalls(answers.ranking, queries), tuple(fractions.tolist()), answers.image_encodes)

    def queries(self, workload: Workload) -> list[str]:
        captions = self.split.captions
        assert captions is not None
        return [captions[i][c] for i, c in zip(workload.images, workload.captions, strict=True) if captions[i]]

    def every_image(self, seed: int) -> Workload:
        return every_image_once(self.size, seed)

    def small_world(self, queries: int, hot_share: float, exponent: float, seed: int) -> Workload:
        assert self.split.captions is not None
        counts = [len(own) for own in self.split.captions]
        return small_world(counts, queries, hot_share=hot_share, exponent=exponent, seed=seed)

    def costs(self) -> list[LevelCost]:
        """Costs of the levels. One that goes on from the level before it costs what is left to compute."""
        found: list[LevelCost] = []
        for level, (variant, module) in enumerate(zip(self.variants, self.modules, strict=True)):
            size, channels = variant.preprocessing.size, self.split.images.channels
            image = torch.zeros(1, channels, size, size, device=self.context.device)
            macs = mac_metrics(module, image)["macs_executed"]
            shape = (channels, size, size)
            times = time_metrics(module, shape, device=self.context.device, seconds=TIMING_SECONDS)
            left = 1 - float(variant.details.get("macs_shared", 0.0)) / macs if self._goes_on(level) else 1.0
            found.append(LevelCost(macs * left, left / times["throughput"]))
        return found

    def _goes_on(self, level: int) -> bool:
        """Whether a level continues the work of the one before it."""
        if level == 0 or not self.variants[level].continues:
            return False
        before = self.modules[level - 1]
        return isinstance(before, EarlyExit) and before.vit is self.modules[level]

    def latencies(self, queries: Sequence[str], m: Sequence[int]) -> dict[str, dict[str, float]]:
        """Seconds of single queries (median and 95th percentile) by `cold` and `warm` caches of the later levels."""
        with tempfile.TemporaryDirectory() as folder:
            cascade = self.cascade(self._real_levels(Path(folder)))
            cascade.build()
            seconds: dict[str, list[float]] = {"cold": [], "warm": []}
            for query in queries:
                cascade.forget()
                for times in seconds.values():
                    began = time.perf_counter()
                    cascade.search([query], k=self.ks[-1], m=m)
                    times.append(time.perf_counter() - began)
        return {state: percentiles(times) for state, times in seconds.items()}

    def _real_levels(self, scratch: Path) -> list[Level]:
        """The levels with their encoders at work, the first one's embeddings excepted where they are there already."""
        real: list[Level] = []
        for place, (variant, module) in enumerate(zip(self.variants, self.modules, strict=True)):
            text = text_encoder_of(variant)
            if place + 1 < len(self.variants) and self._goes_on(place + 1) and isinstance(module, EarlyExit):
                pair = early_exit_levels(
                    variant.name, module, variant.preprocessing, text, self.split.images, scratch,
                    device=self.context.device,
                )  # fmt: skip
                real += pair
                continue
            if self._goes_on(place):
                continue
            own = self.levels[place]
            encode = own.embed_images if place == 0 else _encoder(module, variant, self.split, self.context)
            real.append(Level(own.image_encoder, own.text_encoder, encode, text.embed))
        return real


def _encoder(module: nn.Module, variant: Variant, split: Split, context: Context) -> Callable[[np.ndarray], Tensor]:
    @torch.inference_mode()
    def encode(indices: np.ndarray) -> Tensor:
        return module(variant.preprocessing(split.images, indices, context.device)).float()

    return encode


def _embed_all(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    return torch.cat([encoder.embed(texts[start : start + 256]).clone() for start in range(0, len(texts), 256)])
