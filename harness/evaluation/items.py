"""The items that the scores of a split are means over: images, queries or captions, with class and cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.splits import Split
from subnetbench.harness.evaluation.text_image import FIRST_CAPTION, galleries
from subnetbench.harness.records.items import ItemSet, ItemValues


@dataclass(frozen=True)
class Measured:
    """Metrics of one network, or of one pair; and the items of those that are means over items."""

    metrics: Mapping[str, float | str]
    items: Mapping[str, ItemValues] = field(default_factory=dict)


def image_items(split: Split, task: Task) -> ItemSet:
    """The images of a split as items; in retrieval they are queries.

    Clusters are those that the split states. Otherwise they are the classes where other classes could have been drawn:
    in retrieval and text search, if there are several. In classification the classes are given and the images are drawn.
    """
    cluster = split.clusters
    if cluster is None:
        drawn = task != "classification" and len(np.unique(split.labels)) > 1
        cluster = split.labels if drawn else np.arange(len(split))
    classes = split.classes or tuple(str(i) for i in range(split.num_classes))
    kind = "query" if task == "retrieval" else "image"
    return ItemSet(kind, np.arange(len(split)), split.labels, classes, np.asarray(cluster))


def caption_items(images: ItemSet, first_image: np.ndarray) -> ItemSet:
    """Captions as items: `first_image` (captions,) is the (first) image of each, whose class and cluster it has."""
    return ItemSet(
        "caption", np.arange(len(first_image)), images.label[first_image], images.classes, images.cluster[first_image]
    )


class SplitItems:
    """The sets of items of one split, made once."""

    def __init__(self, split: Split, task: Task) -> None:
        self._images = image_items(split, task)
        self._captions: dict[str, ItemSet] = {}
        if split.captions is not None:
            for prefix, gallery in galleries(split.captions, split.caption_protocol).items():
                first = np.array([images[0] for images in gallery.images_of_text()], np.int64)
                self._captions[prefix] = caption_items(self._images, first)

    def values(self, outcomes: Mapping[str, np.ndarray]) -> dict[str, ItemValues]:
        """The outcomes of each metric with the items that they are of, told by the metric's name."""
        return {name: ItemValues(self._of(name), values) for name, values in outcomes.items()}

    def _of(self, metric: str) -> ItemSet:
        prefix = FIRST_CAPTION if metric.startswith(FIRST_CAPTION) else ""
        return self._captions[prefix] if metric.startswith(f"{prefix}text_to_image") else self._images
