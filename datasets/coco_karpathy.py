"""MSCOCO in Karpathy's splits: 113,287 training, 5,000 validation and 5,000 test images, the field's "COCO 5k".

Below the data root, in `mscoco` or `coco`: `dataset_coco.json` (there, or in `annotations`) and the images, as
`train2014` and `val2014` or as `train2017` and `val2017`, which hold the same images under other names.
"""

from collections.abc import Callable
from pathlib import Path

from subnetbench.datasets.parts.captioned import coco_folder, text_image_data
from subnetbench.datasets.parts.karpathy import ARCHIVE, Listed, karpathy_splits
from subnetbench.harness.data import DataError, Dataset, Task, TaskData, protocols_of, register_dataset


@register_dataset("coco_karpathy")
class CocoKarpathy(Dataset):
    """Every caption of the 5,000 test images is a query; training includes `restval`."""

    tasks = ("text_image",)
    licence = "annotations CC-BY-4.0; images under the terms of Flickr"
    citation = "Karpathy and Fei-Fei, Deep Visual-Semantic Alignments for Generating Image Descriptions, CVPR 2015"
    source = f"{ARCHIVE} (dataset_coco.json); images from https://cocodataset.org, of 2014 or of 2017"

    def load(self, task: Task) -> TaskData:
        base = coco_folder(self.root)
        places = [base / "dataset_coco.json", base / "annotations" / "dataset_coco.json"]
        listing = next((path for path in places if path.is_file()), places[0])
        try:
            splits = karpathy_splits(listing, _locator(base))
        except DataError as error:
            raise DataError(f"{error}. Get it from {self.source}, below {base}") from None
        (protocol,) = protocols_of(self.name, task)
        return text_image_data(self, splits, protocol=protocol, base=base)


def _locator(base: Path) -> Callable[[Listed], Path]:
    """Where an image of the list lies: under its name of 2014, else under its number as in 2017."""
    if all((base / folder).is_dir() for folder in ("train2014", "val2014")):
        return lambda image: base / image.folder / image.file
    evaluated = {path.name for path in (base / "val2017").glob("*.jpg")}

    def by_number(image: Listed) -> Path:
        if image.number is None:
            raise DataError(f"the list has no number of {image.file}, which the folders of 2017 go by")
        name = f"{image.number:012d}.jpg"
        return base / ("val2017" if name in evaluated else "train2017") / name

    return by_number
