"""CIFAR-100: 60000 colour photographs of 32 pixels in 100 classes; classification, and retrieval of seen classes."""

from torchvision.datasets import CIFAR100

from subnetbench.datasets.parts.cifar import read_cifar
from subnetbench.datasets.parts.official import OfficialConfig, classification_data
from subnetbench.harness.data import Dataset, Task, TaskData, register_dataset


@register_dataset("cifar100")
class Cifar100(Dataset):
    """45000 training, 5000 validation and 10000 test images by default; the 100 fine labels."""

    tasks = ("classification", "retrieval")
    licence = "none stated by the authors; research use"
    citation = "Krizhevsky. Learning multiple layers of features from tiny images. University of Toronto, 2009."
    source = CIFAR100.url

    class Config(OfficialConfig):
        pass

    def load(self, task: Task) -> TaskData:
        train, test = read_cifar(CIFAR100, self.root)
        # Over all pixels of the 50000 training images.
        mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
        return classification_data(self, train, test, image_size=32, mean=mean, std=std, task=task)
