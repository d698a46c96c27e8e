"""Fashion-MNIST: 70000 grey pictures of clothes, 28 pixels, in 10 classes; classification."""

from pathlib import Path

from torchvision.datasets import FashionMNIST as TorchvisionFashionMNIST

from subnetbench.datasets.parts.idx import find_idx, read_idx_splits
from subnetbench.datasets.parts.official import OfficialConfig, classification_data
from subnetbench.harness.data import DataError, Dataset, Task, TaskData, register_dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the uncompressed files, which are the same whoever compressed them.
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
        train, test = read_idx_splits(folder, FILES, TorchvisionFashionMNIST.classes)
        # Over all pixels of the 60000 training images.
        return classification_data(self, train, test, image_size=28, mean=(0.2860,), std=(0.3530,))

    def _folder(self) -> Path:
        """Where torchvision puts it, or where the Debian package does."""
        folders = (self.root / "FashionMNIST" / "raw", self.root / "fashion-mnist", DEBIAN)
        for folder in folders:
            if any(find_idx(folder, name) for name in FILES):
                return folder
        raise DataError(
            f"Fashion-MNIST is in none of {', '.join(map(str, folders))}: `apt-get install dataset-fashion-mnist`, "
            f"or get the four files from {self.source.split()[0]} and put them (.gz or not) into {folders[0]}"
        )
