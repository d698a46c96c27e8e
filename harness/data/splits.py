"""Splits of a data set, and a data set made ready for a task.

Data sets hand out uint8 images and integer labels; they never augment, normalise or shuffle. What a network sees
is made by `Preprocessing` (evaluation) and by the augmentations in `subnetbench.methods.parts` (training only).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.images import ImageFiles, Images, TensorImages
from subnetbench.harness.data.metadata import DataMetadata, DataOptions

CaptionProtocol = Literal["all_captions", "merged_captions"]
"""How equal captions of several images count in text search, see `evaluation.text_image`."""


@dataclass(frozen=True)
class GroundTruth:
    """What is right for each query where labels do not say it: gallery indices, one array a query.

    Of `ignored` items neither good nor bad is said: they are taken out of the query's ranking.
    """

    positives: tuple[np.ndarray, ...]
    ignored: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.positives)

    def subset(self, queries: np.ndarray) -> "GroundTruth":
        chosen = np.asarray(queries)
        return GroundTruth(tuple(self.positives[i] for i in chosen), tuple(self.ignored[i] for i in chosen))


@dataclass(frozen=True, kw_only=True)
class Split:
    """Part of a data set: images with what is known of each.

    `labels` are int64 (n,). In the training split they are 0..K-1; in a class-disjoint validation or test split
    they count that split's own classes. `captions[i]` are the texts of image i, and `caption_protocol` says how equal
    ones count; `gallery` is a separate split
    that queries search in (None: the split is its own gallery, and an image never retrieves itself).

    `ground_truth` replaces labels in the evaluation of such a split, once for each setting by its prefix: a metric of
    the setting `hard_` is called `hard_map`; the main setting has the prefix "". `metrics` are what the field reports
    on this split, as far as k fits; none named: the task's own.

    `clusters` (n,) are numbers; samples with the same number are not independent of each other (drawings of one concept,
    images of one patient), which intervals over test items take into account. None: the classes in retrieval and in
    text search where there are several, each sample for itself elsewhere.
    """

    name: str
    images: Images
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] | None = None
    gallery: "Split | None" = None
    ground_truth: Mapping[str, GroundTruth] | None = None
    metrics: tuple[str, ...] = ()
    caption_protocol: CaptionProtocol = "all_captions"
    clusters: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.images):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if self.clusters is not None and len(self.clusters) != len(self.images):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.clusters)} numbers of clusters")
        if self.captions is not None and len(self.captions) != len(self.images):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.captions)} sets of captions")
        for setting in (self.ground_truth or {}).values():
            if self.gallery is None or len(setting) != len(self.images):
                raise ValueError(f"{self.name}: ground truth is of all queries, and in a gallery of their own")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1

    def own_in_gallery(self) -> np.ndarray | None:
        """Gallery index of each query's own file, -1 where it is not there, int64 (n,); None: no file is in both."""
        gallery = self.gallery
        if gallery is None or not (isinstance(self.images, ImageFiles) and isinstance(gallery.images, ImageFiles)):
            return None
        index = {path: i for i, path in enumerate(gallery.images.paths)}
        own = np.array([index.get(path, -1) for path in self.images.paths], np.int64)
        return own if (own >= 0).any() else None

    def subset(self, indices: np.ndarray, name: str | None = None) -> "Split":
        """The samples at `indices`, in that order, with the labels unchanged."""
        captions = None if self.captions is None else tuple(self.captions[i] for i in indices)
        truth = self.ground_truth
        return Split(
            name=name or self.name,
            images=self.images.subset(indices),
            labels=self.labels[indices],
            classes=self.classes,
            captions=captions,
            gallery=self.gallery,
            ground_truth=None if truth is None else {name: each.subset(indices) for name, each in truth.items()},
            metrics=self.metrics,
            caption_protocol=self.caption_protocol,
            clusters=None if self.clusters is None else self.clusters[indices],
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A data set made ready for one task: three splits, their statistics, and a digest of all of it.

    `image_size` is the native side in pixels (None when images differ); `mean` and `std` are per channel, for
    pixels in [0, 1]. `protocol` names how the splits were made (`official test, validation from training`, ...). Two
    results may be compared only when their digests are equal. `primary_metric` ranks results on these data where that is
    not the task's own (mAP at 100 for landmarks); it selects nothing.
    """

    dataset: str
    task: Task
    train: Split
    validation: Split
    test: Split
    image_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    protocol: str
    digest: str
    options: DataOptions = field(default_factory=dict)
    primary_metric: str = ""

    @property
    def channels(self) -> int:
        return self.train.images.channels

    @property
    def num_classes(self) -> int:
        """Number of training classes."""
        return self.train.num_classes

    @property
    def metadata(self) -> DataMetadata:
        """All that networks are built from; it needs no image."""
        return DataMetadata(
            dataset=self.dataset,
            task=self.task,
            classes=self.train.classes or tuple(str(i) for i in range(self.num_classes)),
            channels=self.channels,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            protocol=self.protocol,
            digest=self.digest,
            options=self.options,
        )

    def split(self, name: str) -> Split:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise UserError("no such split", field="split", value=name, allowed=", ".join(splits))
        return splits[name]


def on_device(data: TaskData, device: torch.device, share: float = 0.25) -> TaskData:
    """The same data with its images on a GPU, where they take at most this share of its free memory."""
    tensors = [split.images.tensor for split in (data.train, data.validation, data.test)]
    size = sum(tensor.numel() for tensor in tensors if tensor is not None)
    if device.type != "cuda" or size > share * torch.cuda.mem_get_info(device)[0]:
        return data

    def moved(split: Split) -> Split:
        tensor = split.images.tensor
        return split if tensor is None else replace(split, images=TensorImages(tensor.to(device)))

    return replace(data, train=moved(data.train), validation=moved(data.validation), test=moved(data.test))
