"""What a task's data gives away without learning: the figures that a method has to beat."""

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np
import torch
from torch import nn

from subnetbench.harness.data import Images, Preprocessing, Split, TaskData
from subnetbench.harness.evaluation.embed import embed
from subnetbench.harness.evaluation.retrieval import split_metrics

PIXEL_SIDE = 16


def trivial_baseline(
    data: TaskData, metrics: Sequence[str] | None = None, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """The trivial baseline of the task on the test split, by metric.

    `metrics` are those of a retrieval task, `ks` those of a text-image task.
    """
    if data.task == "classification":
        return constant_answer(data.test)
    if data.task == "retrieval":
        return raw_pixels(data.test, metrics)
    return random_order(data.test, ks)


def constant_answer(split: Split) -> dict[str, float]:
    """The best that one answer to all images can reach: `top1`, `loss` and, with more than 5 classes, `top5`.

    That answer is the split's own class distribution: `top1` is the share of its largest class, `top5` that of
    its five largest classes, `loss` its entropy in nats.
    """
    shares = np.sort(np.bincount(split.labels, minlength=split.num_classes) / len(split))[::-1]
    present = shares[shares > 0]
    top5 = {"top5": float(shares[:5].sum())} if split.num_classes > 5 else {}
    return {"top1": float(shares[0]), **top5, "loss": float(-(present * np.log(present)).sum())}


def raw_pixels(split: Split, metrics: Sequence[str] | None = None) -> dict[str, float]:
    """Retrieval by the cosine of 16 x 16 pixels, each image's mean subtracted."""
    query = _pixels(split.images)
    gallery = query if split.gallery is None else _pixels(split.gallery.images)
    return split_metrics(query, gallery, split, metrics)


def random_order(split: Split, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Expected recall of a random order, in both directions and by the protocols by which a split is scored.

    A query with r right answers among n finds one of them among the first k with probability
    1 - C(n - r, k) / C(n, k); averaged over the queries. Right answers to a caption are all images that have it, to an
    image its different captions. Each k that fits the smaller of the two galleries counts, and the first captions
    alone (`first_caption_`) where images have several.
    """
    protocols = {"": list(split.captions or ())}
    if any(len(own) > 1 for own in protocols[""]):
        protocols["first_caption_"] = [own[:1] for own in protocols[""]]
    results = {}
    for prefix, captions in protocols.items():
        different = [set(own) for own in captions if own]
        images_of_text = Counter(text for own in different for text in own)
        images, texts = len(split), len(images_of_text)
        answers = {"text_to_image": (images, list(images_of_text.values()))}
        answers["image_to_text"] = (texts, [len(own) for own in different])
        for direction, (gallery, positives) in answers.items():
            for k in ks:
                if k <= min(images, texts):
                    chances = [chance_recall(gallery, count, k) for count in positives]
                    results[f"{prefix}{direction}_recall_at_{k}"] = float(np.mean(chances))
    return results


def chance_recall(items: int, positives: int, k: int) -> float:
    """Probability that the first `k` of `items` in random order hold at least one of `positives`."""
    return 1 - comb(items - positives, k) / comb(items, k)


def _pixels(images: Images) -> torch.Tensor:
    channels = images.channels
    preprocessing = Preprocessing(size=PIXEL_SIDE, mean=(0.0,) * channels, std=(1.0,) * channels)
    pixels = embed(nn.Flatten().eval(), images, preprocessing)
    return pixels - pixels.mean(dim=1, keepdim=True)
