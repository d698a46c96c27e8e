"""What a task's data gives away without learning, or with little: the scores that a method has to beat."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Final

import numpy as np

from subnetbench.harness.core.files import read_json, write_atomically
from subnetbench.harness.core.hashing import digest_of
from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.evaluation import frozen
from subnetbench.harness.evaluation.pixels import Values, classified_by, described_by, found_by, found_by_colours
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.text_image import KS, galleries

VERSION: Final = 1
"""Of what baselines are called and how they are computed. A rule that changes gets another name as well: all records of
the same data must state the same value by one name."""

_log = logging.getLogger(__name__)

Baselines = Mapping[str, Values]
"""Metrics on the test split by name of the baseline."""


def trivial_baselines(data: TaskData, metrics: Sequence[str] | None = None, ks: Sequence[int] = KS) -> Baselines:
    """The trivial baselines of the task on the test split that need no network.

    Classification: `chance`, `constant`, and those of `classified_by` pixels. Retrieval: `chance`, `colours` and those of
    `found_by` pixels. Text-image: `chance` and those of `described_by` pixels. `metrics` are those of a retrieval
    task, `ks` those of a text-image task.
    """
    if data.task == "classification":
        return {"chance": guess(data), "constant": constant_answer(data.test), **classified_by(data)}
    if data.task == "retrieval":
        found = found_by(data, metrics)
        return {"chance": random_ranking(data.test, found["raw_pixels"]), **found, **found_by_colours(data, metrics)}
    return {"chance": random_order(data.test, ks), **described_by(data, ks)}


def frozen_baselines(data: TaskData, metrics: Sequence[str] | None = None, ks: Sequence[int] = KS) -> Baselines:
    """Those on the features of a frozen network, which `frozen.why_missing` says are possible."""
    if data.task == "classification":
        return classified_by(data, frozen.FEATURES)
    if data.task == "retrieval":
        return found_by(data, metrics, frozen.FEATURES)
    return described_by(data, ks, frozen.FEATURES)


def cached_baselines(data: TaskData, folder: Path | None) -> Baselines:
    """Both kinds of baselines, each computed once for each data digest and `VERSION`, and kept in `folder` as JSON.

    Those of a frozen network are left out, with a line in the log, where there is none. Concurrent runs may both compute
    them; each writes a whole file, with the same content.
    """
    found = _cached("trivial baselines", trivial_baselines, data, folder)
    if missing := frozen.why_missing(data.channels):
        _log.info("no baselines on features of a frozen network: %s", missing)
        return found
    return {**found, **_cached(f"frozen baselines {frozen.NAME}", frozen_baselines, data, folder)}


def _cached(kind: str, compute: Callable[[TaskData], Baselines], data: TaskData, folder: Path | None) -> Baselines:
    if folder is None:
        return compute(data)
    path = folder / f"baselines-{digest_of(kind, VERSION, data.task, data.digest)}.json"
    found = _checked(read_json(path))
    if found is None:
        found = compute(data)
        try:
            write_atomically(path, json.dumps(found))
        except OSError as error:
            _log.warning("the trivial baselines are not kept: %s", error)
    return found


def _checked(content: Mapping[str, object] | None) -> Baselines | None:
    """What a file holds, if it is metrics by baseline; else they are computed anew."""
    if not content:
        return None
    found: dict[str, Values] = {}
    for name, values in content.items():
        if not isinstance(values, dict) or not all(_is_value(*item) for item in values.items()):
            return None
        found[name] = {metric: float(value) for metric, value in values.items()}
    return found


def _is_value(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value)


def guess(data: TaskData) -> Values:
    """What guessing a class reaches on average: `top1`, `loss` and, with more than 5 classes, `top5`."""
    classes = max(data.num_classes, data.test.num_classes)
    top5 = {"top5": 5 / classes} if classes > 5 else {}
    return {"top1": 1 / classes, **top5, "loss": math.log(classes)}


def random_ranking(split: Split, names: Sequence[str] | Mapping[str, float]) -> Values:
    """Expected metrics of a gallery in random order: `recall_at_k`, `precision_at_k` and `r_precision` among `names`."""
    found: Values = {}
    for prefix, relevance in Relevance.settings(split).items():
        counts = relevance.counts
        taken = [0 if each is None else len(each) for each in relevance.ignored or [None] * len(counts)]
        items = relevance.gallery_size - np.array(taken) - (relevance.own is not None)
        pairs = [(int(n), int(p)) for n, p in zip(items, counts, strict=True) if p > 0]
        for name in names:
            if prefix + name not in names and prefix:
                continue
            if name.startswith("recall_at_"):
                k = parse_metric(name)[1] or 1
                known = {pair: chance_recall(*pair, k) if k <= pair[0] else 1.0 for pair in set(pairs)}
                found[prefix + name] = float(np.mean([known[pair] for pair in pairs]))
            elif name == "r_precision" or name.startswith("precision_at_"):
                found[prefix + name] = float(np.mean([p / n for n, p in pairs]))
    return found


def constant_answer(split: Split) -> dict[str, float]:
    """The best that one answer to all images can reach: `top1`, `loss` and, with more than 5 classes, `top5`.

    That answer is the split's own class distribution: `top1` is the share of its largest class, `top5` that of
    its five largest classes, `loss` its entropy in nats.
    """
    shares = np.sort(np.bincount(split.labels, minlength=split.num_classes) / len(split))[::-1]
    present = shares[shares > 0]
    top5 = {"top5": float(shares[:5].sum())} if split.num_classes > 5 else {}
    return {"top1": float(shares[0]), **top5, "loss": float(-(present * np.log(present)).sum())}


def random_order(split: Split, ks: Sequence[int] = KS) -> dict[str, float]:
    """Expected recall of a random order, in both directions, for the searches that a split is scored by.

    A query with r right answers among n finds one of them among the first k with probability
    1 - C(n - r, k) / C(n, k); averaged over the queries. Each k that fits the smaller of the two galleries counts.
    """
    results = {}
    for prefix, gallery in galleries(split.captions or (), split.caption_protocol).items():
        images, texts = len(split), len(gallery.texts)
        answers = {
            "text_to_image": (images, [len(own) for own in gallery.images_of_text()]),
            "image_to_text": (texts, [len(own) for own in gallery.texts_of_image if len(own)]),
        }
        for direction, (items, positives) in answers.items():
            for k in ks:
                if k <= min(images, texts):
                    chances = [chance_recall(items, count, k) for count in positives]
                    results[f"{prefix}{direction}_recall_at_{k}"] = float(np.mean(chances))
    return results


def chance_recall(items: int, positives: int, k: int) -> float:
    """Probability that the first `k` of `items` in random order hold at least one of `positives`."""
    return 1 - comb(items - positives, k) / comb(items, k)
