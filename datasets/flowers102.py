"""Oxford Flowers-102: 8189 photographs of 102 kinds of flowers; retrieval of unseen kinds.

The folder `flowers-102` holds `imagelabels.mat` and `jpg/image_00001.jpg` to `image_08189.jpg`; the official division of
the images in `setid.mat` does not matter here.
"""

from pathlib import Path

from torchvision.datasets import Flowers102 as TorchvisionFlowers

from subnetbench.datasets.parts.annotations import mat_variables
from subnetbench.datasets.parts.download import Download
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset
from subnetbench.harness.data import DataError, protocols_of, register_dataset

CLASSES = 102
_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


@register_dataset("flowers102")
class Flowers102(RetrievalDataset):
    """The first 51 kinds train, the last 51 test."""

    licence = "none stated; research use"
    citation = "Nilsback, Zisserman. Automated flower classification over a large number of classes. ICVGIP 2008."
    source = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
    folder = "flowers-102"
    counts = {"train classes": 51, "train images": 3493, "test classes": 51, "test images": 4696}
    (protocol,) = protocols_of("flowers102", "retrieval")
    # The checksums are torchvision's.
    downloads = (
        Download(f"{_ADDRESS}102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", "md5", folder, holds="jpg"),
        Download(f"{_ADDRESS}imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", "md5", folder),
        Download(f"{_ADDRESS}setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", "md5", folder),
    )

    class Config(RetrievalConfig):
        pass

    def splits(self, base: Path) -> Parts:
        (labels,) = mat_variables(base / "imagelabels.mat", "labels")
        if labels.dtype.kind not in "iu" or not 1 <= labels.min() <= labels.max() <= CLASSES:
            raise DataError(f"imagelabels.mat does not hold numbers from 1 to {CLASSES}")
        names = TorchvisionFlowers.classes
        paths = [base / "jpg" / f"image_{number:05d}.jpg" for number in range(1, len(labels) + 1)]
        whole = self.image_split("whole", paths, [names[label - 1] for label in labels], names)
        return self.halves(whole, CLASSES // 2)
