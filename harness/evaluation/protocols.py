"""How each task is measured: the same code for every method, over its variants."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.splits import Split
from subnetbench.harness.evaluation.classification import classification_outcomes
from subnetbench.harness.evaluation.cost import size_metrics, time_metrics
from subnetbench.harness.evaluation.evaluator import Evaluator
from subnetbench.harness.evaluation.items import Measured, SplitItems
from subnetbench.harness.evaluation.macs import NotCounted, mac_metrics
from subnetbench.harness.evaluation.retrieval import split_outcomes
from subnetbench.harness.evaluation.text_image import galleries, text_image_outcomes
from subnetbench.harness.evaluation.trivial import cached_baselines
from subnetbench.harness.evaluation.variant import Origin, Variant
from subnetbench.harness.records import Score
from subnetbench.harness.records.record import TRIVIAL

# Latency is measured for this long at each batch size: enough for a median, little beside a short run.
TIMING_SECONDS = 0.3

_log = logging.getLogger(__name__)

Pairs = Callable[[list[Variant]], list[tuple[Variant, Variant]]]


def evaluate_variants(
    variants: list[Variant], evaluator: Evaluator, split: str, *, pairs: Pairs, costs: bool = True
) -> list[Score]:
    """All scores of a run on one split: the task's metrics, the cost of each variant, the trivial baselines.

    Scores that are means over items carry the value of each item. Outputs are computed once a variant and split. Trivial
    baselines come from rank 0 alone. Raises `UserError` when two variants whose embeddings are not in one space are to be
    compared.
    """
    data = evaluator.data
    part = data.split(split)
    scores: list[Score] = []
    outputs, items = _Outputs(evaluator), SplitItems(part, data.task)
    if data.task == "retrieval":
        for query, gallery in pairs(variants):
            origin = query.origin if query.origin == gallery.origin else None
            scores += _scores(_search(query, gallery, part, outputs, items), split, query.name, gallery.name, origin)
    else:
        for variant in variants:
            for found in (_single(variant, part, outputs, items), Measured(_counts(part))):
                scores += _scores(found, split, variant.name, origin=variant.origin)
    if costs and evaluator.costs:
        for variant in variants:
            found = Measured(_costs(variant, outputs.module(variant), evaluator))
            scores += _scores(found, "", variant.name, origin=variant.origin)
    if split == "test" and evaluator.world.is_main:  # the only rank that records
        folder = None if evaluator.cache is None else evaluator.cache.folder
        for name, values in cached_baselines(data, folder).items():
            scores += _scores(Measured(values), split, f"{TRIVIAL}:{name}")
    return scores


def validation_metrics(variants: list[Variant], evaluator: Evaluator) -> dict[str, float]:
    """The task's metrics of the first variant on the validation split."""
    part = evaluator.data.validation
    outputs, items = _Outputs(evaluator), SplitItems(part, evaluator.data.task)
    if evaluator.data.task == "retrieval":
        measured = _search(variants[0], variants[0], part, outputs, items)
    else:
        measured = _single(variants[0], part, outputs, items)
    return {name: float(value) for name, value in measured.metrics.items()}


def _costs(variant: Variant, module: nn.Module, evaluator: Evaluator) -> dict[str, float | str]:
    size = variant.preprocessing.size
    shape = (evaluator.data.channels, size, size)
    image = torch.zeros(1, *shape, device=evaluator.device)
    capacity = {} if variant.capacity is None else {"capacity": variant.capacity}
    times = time_metrics(module, shape, device=evaluator.device, seconds=TIMING_SECONDS)
    return {**size_metrics(module), **_macs(variant.name, module, image), **times, **capacity, **variant.details}


def _macs(name: str, module: nn.Module, image: Tensor) -> dict[str, float]:
    """Multiply-accumulates; where they cannot be known, how many operations and layers nothing counts."""
    try:
        return mac_metrics(module, image)
    except NotCounted as error:
        _log.warning("%s: %s; the record has no MACs of it", name, error)
        return {"uncounted_operations": float(len(error.operations))}


def _search(query: Variant, gallery: Variant, split: Split, outputs: "_Outputs", items: SplitItems) -> Measured:
    """Metrics of queries embedded by one variant that search a gallery embedded by another."""
    if query is not gallery and query.space != gallery.space:
        raise UserError(
            f"variants {query.name!r} and {gallery.name!r} do not share an embedding space; "
            "scores between them mean nothing"
        )
    searched = split if split.gallery is None else split.gallery
    metrics, by_query = split_outcomes(outputs(query, split), outputs(gallery, searched), split)
    return Measured(metrics, items.values(by_query))


def _single(variant: Variant, split: Split, outputs: "_Outputs", items: SplitItems) -> Measured:
    rows = outputs(variant, split)
    if split.captions is None:
        metrics, by_image = classification_outcomes([(rows, torch.from_numpy(split.labels))])
        return Measured(metrics, items.values(by_image))
    encoder = variant.text_encoder
    if encoder is None:
        raise UserError(f"variant {variant.name!r} has no text encoder, so it cannot be searched by text")
    metrics, by_query = text_image_outcomes(rows, split.captions, encoder, protocol=split.caption_protocol)
    return Measured(metrics, items.values(by_query))


def _counts(split: Split) -> dict[str, float]:
    """Of how many items the scores of a split are shares; retrieval counts its queries itself."""
    if split.captions is None:
        return {"items": float(len(split))}
    texts = {
        f"{prefix}texts": float(len(gallery.texts))
        for prefix, gallery in galleries(split.captions, split.caption_protocol).items()
    }
    return {"items": float(sum(bool(own) for own in split.captions)), **texts}


class _Outputs:
    """Outputs of variants on splits, each computed once, and the variants' modules, each built once."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._modules: dict[str, nn.Module] = {}
        self._rows: dict[tuple[str, int], Tensor] = {}

    def module(self, variant: Variant) -> nn.Module:
        if variant.name not in self._modules:
            self._modules[variant.name] = variant.build().to(self._evaluator.device)
        return self._modules[variant.name]

    def __call__(self, variant: Variant, split: Split) -> Tensor:
        key = (variant.name, id(split))
        if key not in self._rows:
            arguments = (self.module(variant), variant.preprocessing, split)
            compute = self._evaluator.cached_outputs if variant.frozen else self._evaluator.outputs
            self._rows[key] = compute(*arguments)
        return self._rows[key]


def _scores(
    measured: Measured, split: str, variant: str, gallery: str = "", origin: Origin | None = None
) -> list[Score]:
    method = "" if origin is None else origin.method
    return [
        Score(
            metric=name,
            value=float(value),
            split=split,
            variant=variant,
            gallery_variant=gallery,
            origin=method,
            items=measured.items.get(name),
        )
        for name, value in measured.metrics.items()
        if isinstance(value, int | float)
    ]
