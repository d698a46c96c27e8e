"""Image folder: your own images, one folder a class; classification or retrieval.

`path` holds either `train` and `test` (and `val`) with one folder a class in each, or the folders of classes
themselves. `training`, `testing`, `valid` and `validation` are understood too, in any case. Images are turned upright as
their EXIF orientation says. What is missing is drawn: with folders of classes alone, a test split; without `val`, a validation
split from training. As in ImageNet's layout, `train` and `val` without `test` make `val` the test.

Classification draws images, stratified, and every split has the training classes. Retrieval draws whole classes,
so that drawn splits share none, and each split counts its own.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from subnetbench.datasets.parts.folders import class_folders, split_folders, unread_folders
from subnetbench.datasets.parts.official import IMAGENET_MEAN, IMAGENET_STD
from subnetbench.datasets.parts.splits import findable, hold_out, limit_training, renumbered, task_data
from subnetbench.harness.data import (
    DataError,
    Dataset,
    DatasetConfig,
    Split,
    Task,
    TaskData,
    UserError,
    protocols_of,
    register_dataset,
    sample_uniforms,
    stream_key,
)

_log = logging.getLogger(__name__)


@register_dataset("image_folder")
class ImageFolder(Dataset):
    """A tree of image files, read when they are needed."""

    tasks = ("classification", "retrieval")
    licence = "that of your images"
    citation = "none"
    source = "your own files"

    class Config(DatasetConfig):
        path: Annotated[str, Field(min_length=1, description="the folder, below the data root or absolute")] = "images"
        validation_fraction: Annotated[
            float, Field(gt=0, lt=1, description="of the training images (retrieval: classes), if there is no val")
        ] = 0.1
        test_fraction: Annotated[
            float, Field(gt=0, lt=1, description="of all images (retrieval: classes), if there are no splits")
        ] = 0.2

    config: Config

    def load(self, task: Task) -> TaskData:
        base = self.root / self.config.path
        train, validation, test = self._splits(base, task)
        if task == "classification":
            validation, test = _with_classes_of(train, validation), _with_classes_of(train, test)
        else:
            train, validation, test = renumbered(train), findable(validation), findable(test)
        train = limit_training(train, self.config)
        (protocol,) = protocols_of(self.name, task)
        splits = train, validation, test
        return task_data(self, task, splits, protocol=protocol, mean=IMAGENET_MEAN, std=IMAGENET_STD, base=base)

    def _splits(self, base: Path, task: Task) -> tuple[Split, Split, Split]:
        if not base.is_dir():
            raise DataError(f"there is no folder {base}: put your images there or name another as data.path")
        validation = None
        if folders := split_folders(base):
            if len(folders) == 1:
                raise DataError(f"{base} has {folders['train'].name} but no folder to test on: call it test or val")
            if others := unread_folders(base, folders):
                _log.warning("%s: folders beside the splits are not read: %s", base, ", ".join(others[:5]))
            read = {split: class_folders(path, split, upright=True) for split, path in folders.items()}
            train, validation = read["train"], read.get("validation")
            if "test" in read:
                test = read["test"]
            else:
                test, validation = replace(read["validation"], name="test"), None
        else:
            train = class_folders(base, "train", upright=True)
            train, test = self._draw(train, task, self.config.test_fraction, "test")
        if validation is None:
            train, validation = self._draw(train, task, self.config.validation_fraction, "validation")
        return train, validation, test

    def _draw(self, split: Split, task: Task, fraction: float, purpose: str) -> tuple[Split, Split]:
        """`split` without a part of its images or classes, and that part."""
        seed = self.config.split_seed
        if task == "classification":
            rest, drawn = hold_out(split, max(1, round(fraction * len(split))), seed, purpose)
        else:
            classes = np.unique(split.labels)
            chance = sample_uniforms(stream_key(seed, "split", purpose), classes, 1)[:, 0]
            chosen = classes[np.argsort(chance)[: max(1, round(fraction * len(classes)))]]
            part = np.isin(split.labels, chosen)
            rest, drawn = split.subset(np.flatnonzero(~part)), split.subset(np.flatnonzero(part), purpose)
        if len(np.unique(rest.labels)) < (split.num_classes if task == "classification" else 2):
            raise UserError("too few images to split", field=f"data.{purpose}_fraction", value=fraction)
        return rest, drawn


def _with_classes_of(train: Split, split: Split) -> Split:
    """`split` with its labels counted as in training, by the names of the classes."""
    unknown = sorted(set(split.classes) - set(train.classes))
    if unknown:
        raise DataError(f"{split.name} has classes that training lacks: {', '.join(unknown[:5])}")
    number = np.array([train.classes.index(name) for name in split.classes], np.int64)
    return replace(split, labels=number[split.labels], classes=train.classes)
