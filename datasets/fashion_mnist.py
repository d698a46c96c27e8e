"""Fashion-MNIST: 70000 grey pictures of clothes, 28 pixels, in 10 classes; classification."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import FashionMNIST as TorchvisionFashionMNIST

from subnetbench.datasets.parts.official import OfficialConfig, classification_data
from subnetbench.harness.data import DataError, Dataset, Split, Task, TaskData, TensorImages, register_dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the uncompressed files, which are the same whoever compressed them.
LONGEST = 50_000_000  # bytes; more than the longest of them
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@register_dataset("fashion_mnist")
class FashionMnist(Dataset):
    """55000 training, 5000 validation and 10000 test images by default."""

    tasks = ("classification",)
    licence = "MIT"
    citation = "Xiao, Rasul, Vollgraf. Fashion-MNIST: a novel image dataset for benchmarking. arXiv:1708.07747, 2017."
    source = "https://github.com/zalandoresearch/fashion-mnist or the Debian package dataset-fashion-mnist"

    class Config(OfficialConfig):
        pass

    def load(self, task: Task) -> TaskData:
        folder = self._folder()
        train, test = _read_split(folder, "train", "train"), _read_split(folder, "test", "t10k")
        # Over all pixels of the 60000 training images.
        return classification_data(self, train, test, image_size=28, mean=(0.2860,), std=(0.3530,))

    def _folder(self) -> Path:
        """Where torchvision puts it, or where the Debian package does."""
        folders = (self.root / "FashionMNIST" / "raw", self.root / "fashion-mnist", DEBIAN)
        for folder in folders:
            if any(_find(folder, name) for name in FILES):
                return folder
        raise DataError(
            f"Fashion-MNIST is in none of {', '.join(map(str, folders))}: `apt-get install dataset-fashion-mnist`, "
            f"or get the four files from {self.source.split()[0]} and put them (.gz or not) into {folders[0]}"
        )


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_split(folder: Path, name: str, prefix: str) -> Split:
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte")
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte")
    return Split(
        name=name,
        images=TensorImages(torch.from_numpy(images[:, None].copy())),
        labels=labels.astype(np.int64),
        classes=tuple(TorchvisionFashionMNIST.classes),
    )


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """An array in the IDX format: two zeros, type 8 (byte), number of dimensions, dimensions, data."""
    path = _find(folder, name)
    if path is None:
        raise DataError(f"Fashion-MNIST in {folder} is incomplete: {name} (or {name}.gz) is missing")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(LONGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): get it again") from None
    if hashlib.sha256(content).hexdigest() != FILES[name]:
        raise DataError(f"{path} is damaged: its content is not the published {name}; get it again")
    dimensions = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(dimensions)
