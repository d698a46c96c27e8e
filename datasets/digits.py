"""Digits: 1797 handwritten digits of 8 pixels from scikit-learn; the fastest classification there is."""

import numpy as np
import torch

from subnetbench.datasets.parts.official import OfficialConfig, ValidationSize, classification_data
from subnetbench.datasets.parts.splits import hold_out
from subnetbench.datasets.parts.statistics import channel_statistics
from subnetbench.harness.data import DataError, Dataset, Split, Task, TaskData, TensorImages, register_dataset

TEST_SIZE = 500


@register_dataset("digits")
class Digits(Dataset):
    """1097 training, 200 validation and 500 test images by default; for trying things out, not for results."""

    tasks = ("classification",)
    licence = "CC-BY-4.0 (UCI Machine Learning Repository)"
    citation = "Alpaydin, Kaynak. Optical recognition of handwritten digits. UCI Machine Learning Repository, 1998."
    source = "scikit-learn, sklearn.datasets.load_digits"

    class Config(OfficialConfig):
        validation_size: ValidationSize = 200

    def load(self, task: Task) -> TaskData:
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError:
            raise DataError("the data set digits comes with scikit-learn: pip install scikit-learn") from None
        data = load_digits()
        pixels = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]  # 0..16 to 0..255
        whole = Split(
            name="train",
            images=TensorImages(torch.from_numpy(pixels)),
            labels=data.target.astype(np.int64),
            classes=tuple(map(str, data.target_names)),
        )
        train, test = hold_out(whole, TEST_SIZE, 0, "test")
        mean, std = channel_statistics(train.images)
        return classification_data(self, train, test, image_size=8, mean=mean, std=std)
