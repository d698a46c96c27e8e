"""The names of everything that evaluation reports: what each means, which way is better, and its range.

Scores are fractions, never per cent. In a name that ends in `_at_k`, k stands for a number: `recall_at_10`. This
module needs no torch, so that listings and leaderboards can use it.
"""

import re
from dataclasses import dataclass
from math import inf

from subnetbench.harness.errors import unknown


@dataclass(frozen=True)
class Metric:
    """One reported figure. `higher_is_better` is None for counts that rank nothing."""

    name: str
    description: str
    higher_is_better: bool | None = True
    low: float = 0.0
    high: float = 1.0


_QUERIES = "mean over the queries with at least one positive"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # classification
        Metric("top1", "share of images whose class has the largest logit"),
        Metric("top5", "share of images whose class is among the five largest logits; only with more than 5 classes"),
        Metric("loss", "mean cross-entropy in nats", False, high=inf),
        # retrieval
        Metric("recall_at_k", "share of queries with at least one positive among the first k"),
        Metric("precision_at_k", f"positives among the first k, divided by k; {_QUERIES}"),
        Metric(
            "precision_oxford_at_k",
            f"precision at k, or at the rank of the last positive where that is smaller; {_QUERIES}",
        ),
        Metric("r_precision", f"positives among the first R, divided by R = number of positives; {_QUERIES}"),
        Metric("map_at_r", f"precisions at the positives among the first R, summed, divided by R; {_QUERIES}"),
        Metric("map", f"average precision over the full ranking: mean precision at the positives; {_QUERIES}"),
        Metric("map_trapezoid", f"area under the precision-recall curve by trapezoids, full ranking; {_QUERIES}"),
        Metric(
            "map_at_k",
            f"precisions at the positives among the first k, summed, divided by min(R, k); {_QUERIES}",
        ),
        Metric("map_trapezoid_at_k", f"trapezoids up to rank k, divided by min(R, k); {_QUERIES}"),
        Metric(
            "map_over_hits_at_k",
            f"mean precision at the positives among the first k, 0 without any; not comparable with map; {_QUERIES}",
        ),
        Metric("queries", "queries with at least one positive, over which the means are taken", None, high=inf),
        Metric("queries_without_positives", "queries that no mean includes", None, high=inf),
        # text and image
        Metric("text_to_image_recall_at_k", "share of captions whose image is among the first k images"),
        Metric("image_to_text_recall_at_k", "share of images with one of their captions among the first k captions"),
        Metric(
            "first_caption_text_to_image_recall_at_k", "text_to_image_recall_at_k with each image's first caption only"
        ),
        Metric(
            "first_caption_image_to_text_recall_at_k", "image_to_text_recall_at_k with each image's first caption only"
        ),
        # cost
        Metric("parameters", "number of parameters", False, high=inf),
        Metric("nonzero_parameters", "number of parameters that are not exactly 0", False, high=inf),
        Metric("sparsity", "share of exact zeros among convolution, linear and attention weights", None),
        Metric("capacity", "share that the method says it kept, as it counts it", None),
        Metric("macs_executed", "multiply-accumulates of dense kernels for one image", False, high=inf),
        Metric("macs_nonzero", "bound that counts only non-zero weights, for one image", False, high=inf),
        Metric("latency_ms", "milliseconds for a batch of one image, median", False, high=inf),
        Metric("latency_ms_p95", "milliseconds for a batch of one image, 95th percentile", False, high=inf),
        Metric("throughput", "images a second at the stated batch size", True, high=inf),
        Metric(
            "peak_memory_bytes", "bytes allocated on the CUDA device at the stated batch size, at most", False, high=inf
        ),
    )
}

_NUMBER = re.compile(r"_at_([1-9]\d*)$", re.ASCII)


def parse_metric(name: str) -> tuple[Metric, int | None]:
    """The metric that `name` means, and its k: `recall_at_10` gives (METRICS["recall_at_k"], 10).

    Raises `UserError` with the nearest name that exists.
    """
    number = _NUMBER.search(name)
    key = name if number is None else name[: number.start()] + "_at_k"
    if key not in METRICS or (number is None and key.endswith("_at_k")):
        k = "1" if number is None else number[1]
        raise unknown("metric", name, [known.replace("_at_k", f"_at_{k}") for known in METRICS])
    return METRICS[key], None if number is None else int(number[1])
