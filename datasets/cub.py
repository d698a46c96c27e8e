"""CUB-200-2011: 11788 photographs of 200 bird species; retrieval of unseen species.

Below the data root lies the published folder `CUB_200_2011` with `images.txt`, `image_class_labels.txt` and `images`.
Without the second file the class is the number before the first dot of an image's path.
"""

from pathlib import Path

from subnetbench.datasets.parts.annotations import columns
from subnetbench.datasets.parts.download import Download
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below
from subnetbench.harness.data import DataError, protocols_of, register_dataset


@register_dataset("cub")
class Cub(RetrievalDataset):
    """The first 100 species train, the last 100 test; bounding boxes are not used."""

    licence = "none stated; non-commercial research and education (photographs from Flickr)"
    citation = "Wah, Branson, Welinder, Perona, Belongie. The Caltech-UCSD Birds-200-2011 dataset. CNS-TR-2011-001."
    source = "https://data.caltech.edu/records/65de6-vp158"
    folder = "CUB_200_2011"
    counts = {"train classes": 100, "train images": 5864, "test classes": 100, "test images": 5924}
    (protocol,) = protocols_of("cub", "retrieval")
    downloads = (
        Download(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            holds=folder,
        ),
    )

    class Config(RetrievalConfig):
        pass

    def splits(self, base: Path) -> Parts:
        images = columns(base / "images.txt", ("number", "path"), separator=" ")
        paths = [path for _, path in images]
        folders = [path.split("/")[0] for path in paths]
        numbers = [folder.split(".")[0] for folder in folders]
        if (base / "image_class_labels.txt").exists():
            stated = dict(columns(base / "image_class_labels.txt", ("number", "class")))
            numbers = [stated.get(number, "") for number, _ in images]
        if not all(number.isdecimal() and 1 <= int(number) <= 200 for number in numbers):
            raise DataError("an image has no class from 1 to 200")
        names = {int(number): folder for number, folder in zip(numbers, folders, strict=True)}
        classes = [names.get(number, str(number)) for number in range(1, 201)]
        keys = [classes[int(number) - 1] for number in numbers]
        whole = self.image_split("whole", [below(base / "images", path) for path in paths], keys, classes)
        return self.halves(whole, 100)
