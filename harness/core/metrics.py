"""The names of everything that evaluation reports: what each means, which way is better, and its range.

Scores are fractions, never per cent. In a name that ends in `_at_k`, k stands for a number: `recall_at_10`. This
module needs no torch, so that listings and leaderboards can use it.
"""

import re
from dataclasses import dataclass
from math import inf

from subnetbench.harness.core.errors import unknown


@dataclass(frozen=True)
class Metric:
    """One reported metric. `higher_is_better` is None for counts that rank nothing.

    `of` is the metric that counts the items of which this one is a share; empty: it is no such share.
    """

    name: str
    description: str
    higher_is_better: bool | None = True
    low: float = 0.0
    high: float = 1.0
    of: str = ""

    @property
    def allowed(self) -> str:
        """The range in words. Values are finite, whatever the range."""
        if self.high < inf:
            return f"{self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.low > -inf else "any number"


_QUERIES = "mean over the queries with at least one positive"

_LIVES = {
    "every_image": "every image is asked for once",
    "small_world": "queries keep asking for a small part of the images",
    "assumed": "with an assumed share of images that later levels encode",
}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # classification
        Metric("top1", "share of images whose class has the largest logit", of="items"),
        Metric(
            "top5",
            "share of images whose class is among the five largest logits; only with more than 5 classes",
            of="items",
        ),
        Metric("loss", "mean cross-entropy in nats", False, high=inf),
        Metric("sampled_top1", "top1 of the network under randomly sampled masks, mean over the masks"),
        Metric("sampled_top1_std", "standard deviation of top1 over the sampled masks", None),
        Metric("expected_keep", "mean probability with which a masked weight is kept when masks are sampled", None),
        Metric("sampled_keep", "share of the masked weights kept in one sampled mask", None),
        Metric("undecided", "share of the masked weights whose score is exactly 0: kept or not by chance", None),
        Metric(
            "items", "images of the split, of which shares are taken; as queries, those with a text", None, high=inf
        ),
        # retrieval
        Metric("recall_at_k", "share of queries with at least one positive among the first k", of="queries"),
        Metric("precision_at_k", f"positives among the first k, divided by k; {_QUERIES}", of="queries"),
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
        Metric("texts", "captions that take part in a search, each as a query", None, high=inf),
        Metric("first_caption_texts", "texts with each image's first caption only", None, high=inf),
        Metric("text_to_image_recall_at_k", "share of captions whose image is among the first k images", of="texts"),
        Metric(
            "image_to_text_recall_at_k",
            "share of images with one of their captions among the first k captions",
            of="items",
        ),
        Metric(
            "first_caption_text_to_image_recall_at_k",
            "text_to_image_recall_at_k with each image's first caption only",
            of="first_caption_texts",
        ),
        Metric(
            "first_caption_image_to_text_recall_at_k",
            "image_to_text_recall_at_k with each image's first caption only",
            of="items",
        ),
        # cost
        Metric("parameters", "number of parameters", False, high=inf),
        Metric("nonzero_parameters", "number of parameters that are not exactly 0", False, high=inf),
        Metric("sparsity", "share of exact zeros among convolution, linear and attention weights", None),
        Metric("capacity", "share that the method says it kept, as it counts it", None),
        Metric("embedding_size", "numbers in an embedding, as it is stored or sent", False, high=inf),
        Metric("weight_bytes", "bytes of all parameters and buffers, as they are stored", False, high=inf),
        Metric("macs_executed", "multiply-accumulates of dense kernels for one image", False, high=inf),
        Metric("macs_nonzero", "bound that counts only non-zero weights, for one image", False, high=inf),
        Metric(
            "uncounted_operations",
            "operations and layers whose multiply-accumulates are not known; there are no MACs beside it",
            None,
            high=inf,
        ),
        Metric("latency_ms", "milliseconds for a batch of one image, median", False, high=inf),
        Metric("latency_ms_p95", "milliseconds for a batch of one image, 95th percentile", False, high=inf),
        Metric("throughput", "images a second at the stated batch size", True, high=inf),
        Metric(
            "peak_memory_bytes", "bytes allocated on the CUDA device at the stated batch size, at most", False, high=inf
        ),
        # encoders of text search, and cascades of them
        Metric("logit_scale", "logarithm of the factor on cosines that the towers were trained with", None, -inf, inf),
        Metric("tokens", "tokens that the image encoder attends to, the class token included", None, high=inf),
        Metric("heads_kept", "attention heads that pruning kept", None, high=inf),
        Metric("neurons_kept", "MLP neurons that pruning kept", None, high=inf),
        Metric("macs_shared", "macs_executed that an earlier level of a cascade has done already", None, high=inf),
        Metric("aligning_loss", "1 if the distillation loss moves the student into the teacher's space, else 0", None),
        Metric("small_world_recall_at_k", "text_to_image_recall_at_k over the queries of the small-world workload"),
        Metric("candidates", "images that a level of a cascade hands on", None, high=inf),
        Metric("cascade_macs", "macs that a level of a cascade spends on an image", False, high=inf),
        Metric(
            "cascade_ms", "milliseconds that a level of a cascade spends on an image, in batches of 32", False, high=inf
        ),
        *(
            Metric(f"{name}_{life}", f"{text}; {meaning}", better, high=high)
            for life, meaning in _LIVES.items()
            for name, text, better, high in (
                ("encoded_share", "images that a level encoded, as a share of the collection", False, 1.0),
                ("encodes_per_query", "images that a query made a level encode, mean", False, inf),
                ("lifetime_macs", "macs for each image of the collection over the life of a cascade", False, inf),
                (
                    "lifetime_speedup",
                    "macs of the last level alone over those of the cascade, over its life",
                    True,
                    inf,
                ),
                ("lifetime_time_speedup", "lifetime_speedup by measured time", True, inf),
            )
        ),
        Metric("cold_query_macs", "most macs that a query with empty caches can need", False, high=inf),
        Metric("cold_query_ms", "milliseconds of that work, in batches of 32", False, high=inf),
        Metric("cold_query_speedup", "cold_query_macs of the first and last level alone, over the cascade's", high=inf),
        *(
            Metric(f"{state}_latency_ms{tail}", f"milliseconds of a single query, {what}, {caches}", False, high=inf)
            for state, caches in (("cold", "caches of later levels empty"), ("warm", "asked a second time"))
            for tail, what in (("", "median"), ("_p95", "95th percentile"))
        ),
        # search
        Metric("search_trials", "trials of the search that chose the config", False, high=inf),
        Metric("search_device_hours", "processes x hours that the search took, its inputs included", False, high=inf),
    )
}

# The settings beside the main one of ROxford5k and RParis6k, which is Medium.
_DIFFICULTIES = {"easy_": "easy items only", "hard_": "hard items only"}
METRICS |= {
    prefix + name: Metric(
        prefix + name,
        f"{METRICS[name].description}; {positives}",
        METRICS[name].higher_is_better,
        high=METRICS[name].high,
        of=METRICS[name].of and prefix + METRICS[name].of,
    )
    for prefix, positives in _DIFFICULTIES.items()
    for name in (
        "recall_at_k",
        "precision_at_k",
        "precision_oxford_at_k",
        "map",
        "map_trapezoid",
        "map_at_k",
        "queries",
        "queries_without_positives",
    )
}

COUNTS = frozenset({"items", "texts", "first_caption_texts"})
"""Numbers of items of a split, which records of earlier versions lack."""

_NUMBER = re.compile(r"_at_([1-9]\d*)$", re.ASCII)


def parse_metric(name: str) -> tuple[Metric, int | None]:
    """The metric that `name` means, and its k: `recall_at_10` gives (METRICS["recall_at_k"], 10).

    Raises `UserError` with the nearest name that exists.
    """
    number = _NUMBER.search(name)
    metric = known_metric(name)
    if metric is None:
        k = "1" if number is None else number[1]
        raise unknown("metric", name, [known.replace("_at_k", f"_at_{k}") for known in METRICS])
    return metric, None if number is None else int(number[1])


_OF_MACHINE = {
    *("latency_ms", "throughput", "peak_memory_bytes", "cascade_ms", "cold_query_ms", "search_device_hours"),
    *("wall_seconds", "train_seconds", "gpu_hours", "energy_joules"),
}


def depends_on_machine(name: str) -> bool:
    """Whether a metric, or a cost of a run, is a time, an amount of energy, or what else a machine decides."""
    base = name.removesuffix("_p95").removeprefix("cold_").removeprefix("warm_")
    return name in _OF_MACHINE or base in _OF_MACHINE or name.startswith("lifetime_time_speedup")


def known_metric(name: str) -> Metric | None:
    """The metric that `name` means, or None where this module has none of that name."""
    number = _NUMBER.search(name)
    if number is None:
        return None if name.endswith("_at_k") else METRICS.get(name)
    return METRICS.get(name[: number.start()] + "_at_k")


def counted_by(name: str) -> tuple[str, int]:
    """The metric that counts the items of which `name` is a share, and how many steps an item is worth.

    `precision_at_10` gives ("queries", 10): it changes by a tenth of a query at least. Empty, where it is no share.
    """
    metric = known_metric(name)
    if metric is None or not metric.of:
        return "", 1
    number = _NUMBER.search(name)
    return metric.of, int(number[1]) if number is not None and metric.name.endswith("precision_at_k") else 1
