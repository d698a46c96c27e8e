"""CIFAR-10: 60000 colour photographs of 32 pixels in 10 classes; classification."""

from torchvision.datasets import CIFAR10

from subnetbench.datasets.parts.cifar import read_cifar
from subnetbench.datasets.parts.official import OfficialConfig, classification_data
from subnetbench.harness.data import Dataset, Task, TaskData, register_dataset


@register_dataset("cifar10")
class Cifar10(Dataset):
    """45000 training, 5000 validation and 10000 test images by default."""

    tasks = ("classification",)
    licence = "none stated by the authors; research use"
    citation = "Krizhevsky. Learning multiple layers of features from tiny images. University of Toronto, 2009."
    source = CIFAR10.url

    class Config(OfficialConfig):
        pass

    def load(self, task: Task) -> TaskData:
        train, test = read_cifar(CIFAR10, self.root)
        # Over all pixels of the 50000 training images. The often copied standard deviations around 0.20 are
        # means of the images' own, which is something else.
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        return classification_data(self, train, test, image_size=32, mean=mean, std=std)
