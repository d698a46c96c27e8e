"""MNIST: 70000 grey pictures of handwritten digits, 28 pixels, in 10 classes; classification."""

from torchvision.datasets import MNIST as TorchvisionMNIST

from subnetbench.datasets.parts.idx import find_idx, read_idx_splits
from subnetbench.datasets.parts.official import OfficialConfig, classification_data
from subnetbench.harness.data import DataError, Dataset, Task, TaskData, register_dataset

# SHA-256 of the uncompressed files, which are the same whoever compressed them.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@register_dataset("mnist")
class Mnist(Dataset):
    """55000 training, 5000 validation and 10000 test images by default."""

    tasks = ("classification",)
    licence = "none stated by the authors; copies say CC-BY-SA-3.0"
    citation = "LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. 1998."
    source = "https://storage.googleapis.com/cvdf-datasets/mnist (or torchvision's download)"

    class Config(OfficialConfig):
        pass

    def load(self, task: Task) -> TaskData:
        folders = (self.root / "MNIST" / "raw", self.root / "mnist")
        folder = next((folder for folder in folders if any(find_idx(folder, name) for name in FILES)), None)
        if folder is None:
            places = " nor ".join(map(str, folders))
            raise DataError(
                f"MNIST is neither in {places}: get the four files from {self.source.split()[0]} and put them (.gz or "
                f"not) into {folders[0]}"
            )
        train, test = read_idx_splits(folder, FILES, TorchvisionMNIST.classes)
        # Over all pixels of the 60000 training images.
        return classification_data(self, train, test, image_size=28, mean=(0.1307,), std=(0.3081,))
