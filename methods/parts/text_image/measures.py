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

from subnetbench.harness.method import (
    TIMING_SECONDS,
    Backend,
    Context,
    DataError,
    ItemValues,
    Split,
    Variant,
    caption_items,
    digest_of,
    image_items,
    mac_metrics,
    time_metrics,
    weights_digest,
)
from subnetbench.methods.parts.text_image.base import text_encoder_of
from subnetbench.methods.parts.text_image.cascade import Cascade, Level
from subnetbench.methods.parts.text_image.cost import percentiles
from subnetbench.methods.parts.text_image.early_exit import EarlyExit, early_exit_levels
from subnetbench.methods.parts.text_image.encoders import TextEncoder
from subnetbench.methods.parts.text_image.workloads import Workload, every_image_once, small_world

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
        self.index = {text: i for i, text in enumerate(self.texts)}
        images: list[list[int]] = [[] for _ in self.texts]
        for image, own in enumerate(split.captions):
            for caption in dict.fromkeys(own):
                images[self.index[caption]].append(image)
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
            rows[images] = self.context.evaluator.cached_outputs(module, variant.preprocessing, self.split)
        encoder = text_encoder_of(variant)
        if encoder.identity not in embedded:
            embedded[encoder.identity] = _embed_all(encoder, self.texts)
        own, texts = rows[images], embedded[encoder.identity]
        return Level(
            image_encoder=images,
            text_encoder=encoder.identity,
            embed_images=lambda indices: own[torch.from_numpy(indices).to(own.device)],
            embed_texts=lambda queries: texts[[self.index[query] for query in queries]],
        )

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.split)

    @property
    def ks(self) -> list[int]:
        """The ranks at which recall is measured, in rising order."""
        return [k for k in KS if k <= self.size]

    def cascade(self, levels: Sequence[Level] | None = None) -> Cascade:
        """A cascade of `levels` (default: all) that has encoded nothing yet."""
        return Cascade(levels or self.levels, self.size, device=self.context.device, backend=self.backend)

    def found(self, ranking: np.ndarray, queries: Sequence[str]) -> dict[int, np.ndarray]:
        """Whether each query has an image of that caption among the first k of `ranking`, bool (queries,) by k."""
        wanted = [self.answers[self.index[query]] for query in queries]
        hits = np.stack([np.isin(row, images) for row, images in zip(ranking, wanted, strict=True)])
        return {k: np.asarray(hits[:, :k].any(axis=1)) for k in self.ks}

    def recalls(self, ranking: np.ndarray, queries: Sequence[str]) -> dict[int, float]:
        """Recall at each k: share of queries with an image of that caption among the first k of `ranking`."""
        return {k: float(found.mean()) for k, found in self.found(ranking, queries).items()}

    def by_caption(self, m: Sequence[int], levels: Sequence[Level] | None = None) -> dict[int, ItemValues]:
        """Whether every caption, as a query once, finds an image; the means are the recalls."""
        cascade = self.cascade(levels)
        cascade.build()
        found = self.found(cascade.search(self.texts, k=self.ks[-1], m=m).ranking, self.texts)
        images = image_items(self.split, "text_image")
        items = caption_items(images, np.array([answers[0] for answers in self.answers], np.int64))
        return {k: ItemValues(items, hits) for k, hits in found.items()}

    def all_captions(self, m: Sequence[int], levels: Sequence[Level] | None = None) -> dict[int, float]:
        """Recalls with every caption as a query once."""
        return {k: float(each.value.mean(dtype=np.float64)) for k, each in self.by_caption(m, levels).items()}

    def run(self, workload: Workload, m: Sequence[int]) -> WorkloadResult:
        """Send the queries of a workload through a cascade that knows nothing yet."""
        queries = self.queries(workload)
        cascade = self.cascade()
        encodes = cascade.build().astype(np.float64)
        answers = cascade.search(queries, k=self.ks[-1], m=m)
        fractions = (encodes + answers.image_encodes.sum(axis=0)) / self.size
        return WorkloadResult(self.recalls(answers.ranking, queries), tuple(fractions.tolist()), answers.image_encodes)

    def queries(self, workload: Workload) -> list[str]:
        """The captions that a workload asks for, in order."""
        captions = self.split.captions
        assert captions is not None
        return [captions[i][c] for i, c in zip(workload.images, workload.captions, strict=True) if captions[i]]

    def every_image(self, seed: int) -> Workload:
        """The published workload: the first caption of every image."""
        return every_image_once(self.size, seed)

    def small_world(self, queries: int, hot_share: float, exponent: float, seed: int) -> Workload:
        """A workload that returns to a hot subset of the images."""
        assert self.split.captions is not None
        counts = [len(own) for own in self.split.captions]
        return small_world(counts, queries, hot_share=hot_share, exponent=exponent, seed=seed)

    def costs(self) -> list[LevelCost]:
        """Costs of the levels. One that continues from the level before it costs what is left to compute."""
        found: list[LevelCost] = []
        for level, (variant, module) in enumerate(zip(self.variants, self.modules, strict=True)):
            size, channels = variant.preprocessing.size, self.split.images.channels
            image = torch.zeros(1, channels, size, size, device=self.context.device)
            macs = mac_metrics(module, image)["macs_executed"]
            shape = (channels, size, size)
            times = time_metrics(module, shape, device=self.context.device, seconds=TIMING_SECONDS)
            left = 1 - float(variant.details.get("macs_shared", 0.0)) / macs if self._continues(level) else 1.0
            found.append(LevelCost(macs * left, left / times["throughput"]))
        return found

    def _continues(self, level: int) -> bool:
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
        for number, (variant, module) in enumerate(zip(self.variants, self.modules, strict=True)):
            text = text_encoder_of(variant)
            if number + 1 < len(self.variants) and self._continues(number + 1) and isinstance(module, EarlyExit):
                pair = early_exit_levels(
                    variant.name, module, variant.preprocessing, text, self.split.images, scratch,
                    device=self.context.device,
                )  # fmt: skip
                real += pair
                continue
            if self._continues(number):
                continue
            own = self.levels[number]
            encode = own.embed_images if number == 0 else _encoder(module, variant, self.split, self.context)
            real.append(Level(own.image_encoder, own.text_encoder, encode, text.embed))
        return real


def _encoder(module: nn.Module, variant: Variant, split: Split, context: Context) -> Callable[[np.ndarray], Tensor]:
    @torch.inference_mode()
    def encode(indices: np.ndarray) -> Tensor:
        result: Tensor = module(variant.preprocessing(split.images, indices, context.device)).float()
        return result

    return encode


def _embed_all(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    return torch.cat([encoder.embed(texts[start : start + 256]).clone() for start in range(0, len(texts), 256)])
