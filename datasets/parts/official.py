"""Sets with an official training and test split of the same classes; validation is cut from training."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from subnetbench.datasets.parts.splits import hold_out, limit_training, task_data
from subnetbench.harness.data import (
    OFFICIAL,
    SEEN_CLASSES,
    Dataset,
    DatasetConfig,
    Split,
    Task,
    TaskData,
    UserError,
    protocols_of,
)

# The statistics that torchvision's and timm's pretrained networks expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


ValidationSize = Annotated[
    int, Field(ge=1, description="training images set aside to select by, stratified, drawn by split_seed")
]


class OfficialConfig(DatasetConfig):
    """Adds the size of the validation split."""

    validation_size: ValidationSize = 5000


def classification_data(
    dataset: Dataset,
    train: Split,
    test: Split,
    *,
    image_size: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    base: Path | None = None,
    task: Task = "classification",
) -> TaskData:
    """Cut validation and `train_size` from `train` as `dataset.config` says; `base` is the folder of image files.

    The task `retrieval` is that of classes seen in training: each test image is a query to all others.

    `mean` and `std` are those of the whole training split, whatever is cut from it.

    Raises:
        UserError: For sizes that leave a class without images.
    """
    config = dataset.config
    assert isinstance(config, OfficialConfig)
    (protocol,) = protocols_of(dataset.name, task) or (OFFICIAL,)
    if task == "retrieval":
        protocol += SEEN_CLASSES
    most = len(train) - train.num_classes
    if not train.num_classes <= config.validation_size <= most:
        raise UserError(
            "validation and training both need every class",
            field="data.validation_size",
            value=config.validation_size,
            allowed=f"{train.num_classes} to {most}",
        )
    train, validation = hold_out(train, config.validation_size, config.split_seed, "validation")
    train = limit_training(train, config)
    splits = train, validation, test
    return task_data(dataset, task, splits, protocol=protocol, mean=mean, std=std, image_size=image_size, base=base)
