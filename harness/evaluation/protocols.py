"""How each task is measured: the same code for every method, over its variants."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.data import Split
from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.classification import classification_metrics
from subnetbench.harness.evaluation.cost import mac_metrics, size_metrics, time_metrics
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import retrieval_metrics, split_metrics
from subnetbench.harness.evaluation.trivial import trivial_baseline
from subnetbench.harness.feature_cache import cached_outputs
from subnetbench.harness.method import Variant
from subnetbench.harness.records import Score
from subnetbench.harness.records.record import TRIVIAL

if TYPE_CHECKING:
    from subnetbench.harness.context import Context

# Latency is measured for this long at each batch size: enough for a median, little beside a short run.
TIMING_SECONDS = 0.3

Pairs = Callable[[list[Variant]], list[tuple[Variant, Variant]]]


def evaluate_variants(
    variants: list[Variant], context: "Context", split: str, *, pairs: Pairs, costs: bool = True
) -> list[Score]:
    """All scores of a run on one split: the task's metrics, the cost of each variant, the trivial baselines.

    Outputs are computed once a variant and split. Raises `UserError` when two variants whose embeddings are not
    in one space are to be compared.
    """
    data = context.data
    part = data.split(split)
    scores: list[Score] = []
    outputs = _Outputs(context)
    if data.task == "retrieval":
        for query, gallery in pairs(variants):
            scores += _scores(_search(query, gallery, part, outputs), split, query.name, gallery.name)
    else:
        for variant in variants:
            scores += _scores(_single(variant, part, outputs), split, variant.name)
    if costs:
        for variant in variants:
            scores += _scores(_costs(variant, outputs.module(variant), context), "", variant.name)
    if split == "test":
        scores += _scores(trivial_baseline(data), split, TRIVIAL)
    return scores


def validation_metrics(variants: list[Variant], context: "Context") -> dict[str, float]:
    """The task's metrics of the first variant on the validation split."""
    part = context.data.validation
    outputs = _Outputs(context)
    if context.data.task == "retrieval":
        return _search(variants[0], variants[0], part, outputs)
    return _single(variants[0], part, outputs)


def _costs(variant: Variant, module: nn.Module, context: "Context") -> dict[str, Any]:
    size = variant.preprocessing.size
    shape = (context.data.channels, size, size)
    image = torch.zeros(1, *shape, device=context.device)
    capacity = {} if variant.capacity is None else {"capacity": variant.capacity}
    times = time_metrics(module, shape, device=context.device, seconds=TIMING_SECONDS)
    return {**size_metrics(module), **mac_metrics(module, image), **times, **capacity, **variant.details}


def _search(query: Variant, gallery: Variant, split: Split, outputs: "_Outputs") -> dict[str, float]:
    """Metrics of queries embedded by one variant that search a gallery embedded by another."""
    if query is not gallery and query.space != gallery.space:
        raise UserError(
            f"variants {query.name!r} and {gallery.name!r} do not share an embedding space; "
            "scores between them mean nothing"
        )
    place = split if split.gallery is None else split.gallery
    return split_metrics(outputs(query, split), outputs(gallery, place), split)


def _single(variant: Variant, split: Split, outputs: "_Outputs") -> dict[str, float]:
    rows = outputs(variant, split)
    if split.captions is None:
        return classification_metrics([(rows, torch.from_numpy(split.labels))])
    if variant.text_encoder is None:
        raise UserError(f"variant {variant.name!r} has no text encoder, so it cannot be searched by text")
    return search_by_text(rows, split.captions, variant.text_encoder)


def search_by_text(
    images: Tensor, captions: Sequence[Sequence[str]], encoder: Callable[[Sequence[str]], Tensor]
) -> dict[str, float]:
    """Recall at 1, 5 and 10 in both directions; a caption's positives are all images that have it.

    Where images have several captions, also by the protocol that asks only the first of each (`first_caption_`).
    """
    texts = sorted({caption for own in captions for caption in own})
    place = {text: i for i, text in enumerate(texts)}
    embedded = encoder(texts).to(images.device)
    results = _recall_both_ways(images, embedded, [[place[text] for text in own] for own in captions])
    if any(len(own) > 1 for own in captions):
        firsts = [own[:1] for own in captions]
        asked = sorted({text for own in firsts for text in own})
        place = {text: i for i, text in enumerate(asked)}
        rows = torch.tensor(np.searchsorted(texts, asked), device=images.device)
        found = _recall_both_ways(images, embedded[rows], [[place[text] for text in own] for own in firsts])
        results |= {f"first_caption_{name}": value for name, value in found.items()}
    return results


def _recall_both_ways(images: Tensor, texts: Tensor, texts_of_image: Sequence[Sequence[int]]) -> dict[str, float]:
    of_image = [np.unique(np.array(own, dtype=np.int64)) for own in texts_of_image]
    of_text: list[list[int]] = [[] for _ in texts]
    for image, places in enumerate(of_image):
        for i in places:
            of_text[i].append(image)
    names = [f"recall_at_{k}" for k in (1, 5, 10) if k <= min(len(texts), len(images))]
    found = retrieval_metrics(texts, images, Relevance.from_lists(of_text, None, len(images)), names)
    back = retrieval_metrics(images, texts, Relevance.from_lists(of_image, None, len(texts)), names)
    return {f"text_to_image_{name}": found[name] for name in names} | {
        f"image_to_text_{name}": back[name] for name in names
    }


class _Outputs:
    """Outputs of variants on splits, each computed once, and the variants' modules, each built once."""

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._modules: dict[str, nn.Module] = {}
        self._rows: dict[tuple[str, int], Tensor] = {}

    def module(self, variant: Variant) -> nn.Module:
        if variant.name not in self._modules:
            self._modules[variant.name] = variant.build().to(self._context.device)
        return self._modules[variant.name]

    def __call__(self, variant: Variant, split: Split) -> Tensor:
        key = (variant.name, id(split))
        if key not in self._rows:
            arguments = (self.module(variant), variant.preprocessing, split)
            rows = cached_outputs(self._context, *arguments) if variant.frozen else self._context.outputs(*arguments)
            self._rows[key] = rows
        return self._rows[key]


def _scores(figures: Mapping[str, Any], split: str, variant: str, gallery: str = "") -> list[Score]:
    return [
        Score(metric=name, value=float(value), split=split, variant=variant, gallery_variant=gallery)
        for name, value in figures.items()
        if isinstance(value, int | float)
    ]
