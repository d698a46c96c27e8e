"""ImageNet-1k: 1.3 million photographs in 1000 classes; classification, and retrieval of seen classes.

The folder `imagenet` holds `train` and `val`, each with one folder a class named by its WordNet id.
"""

from typing import Annotated

from pydantic import Field

from subnetbench.datasets.parts.folders import class_folders
from subnetbench.datasets.parts.official import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OfficialConfig,
    ValidationSize,
    classification_data,
)
from subnetbench.harness.data import DataError, Dataset, Task, TaskData, register_dataset

CLASSES, TRAIN_IMAGES, TEST_IMAGES = 1000, 1_281_167, 50_000


@register_dataset("imagenet")
class Imagenet(Dataset):
    """The official validation split is the test; validation is drawn from training."""

    tasks = ("classification", "retrieval")
    licence = "terms of ImageNet: non-commercial research"
    citation = "Russakovsky et al. ImageNet large scale visual recognition challenge. IJCV 2015, arXiv:1409.0575."
    source = "https://image-net.org (after registration)"

    class Config(OfficialConfig):
        path: Annotated[str, Field(min_length=1, description="its folder, below the data root or absolute")] = (
            "imagenet"
        )
        validation_size: ValidationSize = 10_000

    config: Config

    def load(self, task: Task) -> TaskData:
        folder = self.root / self.config.path
        if not folder.is_dir():
            raise DataError(
                f"ImageNet is not at {folder}: get it from {self.source}, with a folder a class in train and val"
            )
        train, test = class_folders(folder / "train", "train"), class_folders(folder / "val", "test")
        counts = (train.num_classes, len(train), len(test))
        if counts != (CLASSES, TRAIN_IMAGES, TEST_IMAGES) or train.classes != test.classes:
            raise DataError(
                f"ImageNet in {folder} is incomplete: {counts[0]} classes, {counts[1]} training and {counts[2]} "
                f"validation images, expected {CLASSES}, {TRAIN_IMAGES} and {TEST_IMAGES} of the same classes; "
                "for a part of it use image_folder"
            )
        return classification_data(
            self,
            train,
            test,
            image_size=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            base=folder,
            task=task,
        )
