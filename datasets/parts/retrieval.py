"""What retrieval sets of image files share: splits by class, published counts, missing files, downloads.

A data set of this kind says where its files are and what their annotations mean; all else is here.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from subnetbench.datasets.parts.download import Download, fetch
from subnetbench.datasets.parts.official import IMAGENET_MEAN, IMAGENET_STD
from subnetbench.datasets.parts.splits import limit_training, renumbered, task_data
from subnetbench.harness.data import (
    NOT_HELD_OUT,
    OWN_IMAGE,
    DataError,
    Dataset,
    DatasetConfig,
    ImageFiles,
    Split,
    Task,
    TaskData,
    UserError,
)

FINE_GRAINED_METRICS = (
    *(f"recall_at_{k}" for k in (1, 2, 4, 8, 16, 32)),
    "r_precision",
    "map_at_r",
    "map",
    "map_trapezoid",
)


class RetrievalConfig(DatasetConfig):
    """Options of every retrieval set of files."""

    path: Annotated[
        str | None, Field(min_length=1, description="its folder, below the data root or absolute [default: the usual]")
    ] = None
    validation_classes: Annotated[
        int | None,
        Field(ge=0, description="training classes set aside to select by, the last ones; null: a tenth; 0: none"),
    ] = None
    partial: Annotated[
        bool, Field(description="accept a part of the published images; compares with nobody's scores")
    ] = False


class Parts(NamedTuple):
    """What the annotations say: the training and the test split (with its gallery, if it has one), and validation."""

    train: Split
    test: Split
    validation: Split | None = None


class RetrievalDataset(Dataset):
    """A data set for retrieval; subclasses give `splits`.

    `folder` is its usual folder below the data root, `counts` are the published numbers by the names that
    `found_counts` uses, `metrics` what the field reports, and `downloads` the files that `fetch` may get.
    """

    tasks = ("retrieval",)
    folder: ClassVar[str]
    counts: ClassVar[Mapping[str, int]] = {}
    metrics: ClassVar[tuple[str, ...]] = FINE_GRAINED_METRICS
    protocol: ClassVar[str]
    downloads: ClassVar[tuple[Download, ...]] = ()
    upright: ClassVar[bool] = False
    """Turn images as their EXIF orientation says: for one's own, not where published figures were made without."""

    class Config(RetrievalConfig):
        pass

    config: RetrievalConfig

    @abstractmethod
    def splits(self, base: Path) -> Parts:
        """The splits that the files below `base` make."""

    def expected(self) -> Mapping[str, int]:
        """The published numbers that hold for this config."""
        return self.counts

    @property
    def base(self) -> Path:
        """The folder that image paths of the annotations are relative to."""
        return self.root.absolute() / (self.config.path or self.folder)

    def load(self, task: Task) -> TaskData:
        base = self.base
        if not base.is_dir():
            raise DataError(f"there is no folder {base}: {self.where_from()}, or name another folder as data.path")
        try:
            parts = self.splits(base)
        except DataError as error:
            raise DataError(f"{self.name}: {error}; {self.where_from()}") from None
        self._check_counts(parts)
        return self._ready(parts, base)

    def where_from(self) -> str:
        """What to do about missing files."""
        if self.downloads:
            return f"`subnetbench datasets fetch {self.name}` gets it"
        return f"get it from {self.source}"

    def fetch(self) -> Path:
        if not self.downloads:
            return super().fetch()
        for download in self.downloads:
            fetch(download, self.root)
        return self.root / self.folder

    def image_split(self, name: str, paths: Sequence[Path], keys: Sequence[str], classes: Sequence[str] = ()) -> Split:
        """A split of these files with the classes `keys`, numbered as in `classes`, else as they first appear.

        Raises:
            DataError: For files that are missing or empty; with `partial` they are left out.
        """
        kept = self.present(paths)
        if not len(kept):
            raise DataError(f"none of the {len(paths)} images of the {name} split is there, such as {paths[:1]}")
        classes = tuple(classes or dict.fromkeys(keys))
        number = {key: i for i, key in enumerate(classes)}
        labels = np.array([number[keys[i]] for i in kept], np.int64)
        images = ImageFiles([paths[i] for i in kept], upright=self.upright)
        return Split(name=name, images=images, labels=labels, classes=classes)

    def present(self, paths: Sequence[Path]) -> np.ndarray:
        """Which of the files are there: all, or with `partial` perhaps fewer.

        Raises:
            DataError: When images are missing and `partial` is not set.
        """
        there = np.array([_has_content(path) for path in paths], bool)
        if not self.config.partial and not there.all():
            lacking = [str(path) for path, ok in zip(paths, there, strict=True) if not ok]
            raise DataError(
                f"{len(lacking)} of {len(paths)} images are missing or empty, such as {', '.join(lacking[:3])}"
            )
        return np.flatnonzero(there)

    def halves(self, whole: Split, train_classes: int) -> Parts:
        """The first `train_classes` classes for training, the others for test, each image a query to all others."""
        is_train = whole.labels < train_classes
        if is_train.all() or not is_train.any():
            raise DataError(f"all images are of the same half of the {whole.num_classes} classes")
        train, test = (whole.subset(np.flatnonzero(part)) for part in (is_train, ~is_train))
        return Parts(replace(renumbered(train), name="train"), replace(renumbered(test), name="test"))

    def _check_counts(self, parts: Parts) -> None:
        found = found_counts(parts)
        wrong = [
            f"{found[name]} {name} instead of {count}"
            for name, count in self.expected().items()
            if found[name] != count
        ]
        if wrong and not self.config.partial:
            raise DataError(
                f"{self.name} in {self.base} is not the published one: {', '.join(wrong)}; {self.where_from()}, "
                "or take it as it is with data.partial=true"
            )

    def _ready(self, parts: Parts, base: Path) -> TaskData:
        config, protocol = self.config, self.protocol
        train, validation = self._validation(parts)
        if config.validation_classes == 0 and len(train):
            protocol += NOT_HELD_OUT
        train = limit_training(train, config) if len(train) else train
        own = parts.test.own_in_gallery()
        if own is not None and parts.test.ground_truth is None:
            protocol += OWN_IMAGE.format(count=int((own >= 0).sum()))
        splits = train, validation, replace(parts.test, metrics=self.metrics)
        return task_data(self, "retrieval", splits, protocol=protocol, mean=IMAGENET_MEAN, std=IMAGENET_STD, base=base)

    def _validation(self, parts: Parts) -> tuple[Split, Split]:
        """Training without its last classes, and these; with `validation_classes: 0` training keeps them."""
        train, given, asked = parts.train, parts.validation, self.config.validation_classes
        if not len(train):
            return train, train
        if given is not None:
            return (joined(train, given) if asked == 0 else train), given
        train = renumbered(train)
        count = asked or max(1, round(train.num_classes / 10))
        if count >= train.num_classes:
            raise UserError(
                "leaves nothing to train on",
                field="data.validation_classes",
                value=count,
                allowed=f"< {train.num_classes}",
            )
        held_out = train.labels >= train.num_classes - count
        rest = train if asked == 0 else renumbered(train.subset(np.flatnonzero(~held_out)))
        return rest, replace(renumbered(train.subset(np.flatnonzero(held_out))), name="validation")


def below(folder: Path, name: str) -> Path:
    """The file that an annotation names; it may not lie outside the folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"an annotation names a file outside {folder}: {name!r}")
    return folder / name


def found_counts(parts: Parts) -> dict[str, int]:
    """The numbers that are compared with the published ones."""
    train, test = parts.train, parts.test
    found = {
        "train classes": len(np.unique(train.labels)),
        "train images": len(train),
        "test classes": len(np.unique(test.labels)),
        "test images": len(test),
    }
    if test.gallery is not None:
        found |= {"queries": len(test), "gallery images": len(test.gallery)}
    return found


def with_gallery(query: Split, gallery: Split) -> Split:
    """The queries with the set that they search in, both counting the same classes, by name."""
    classes = tuple(dict.fromkeys([*query.classes, *gallery.classes]))
    number = {name: i for i, name in enumerate(classes)}

    def counted(split: Split, name: str) -> Split:
        labels = np.array([number[split.classes[label]] for label in split.labels], np.int64)
        return replace(split, name=name, labels=labels, classes=classes)

    return replace(counted(query, "test"), gallery=counted(gallery, "gallery"))


def joined(first: Split, second: Split) -> Split:
    """The images of two splits of files; classes of the second follow those of the first."""
    assert isinstance(first.images, ImageFiles)
    assert isinstance(second.images, ImageFiles)
    return Split(
        name=first.name,
        images=ImageFiles([*first.images.paths, *second.images.paths], upright=first.images.upright),
        labels=np.concatenate([first.labels, second.labels + first.num_classes]),
        classes=(*first.classes, *second.classes),
    )


def unlabelled(name: str, paths: Sequence[Path], boxes: np.ndarray | None = None) -> Split:
    """Images of which a ground truth, not a label, says what is right for them."""
    labels = np.zeros(len(paths), np.int64)
    return Split(name=name, images=ImageFiles(paths, boxes), labels=labels, classes=("unlabelled",))


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
