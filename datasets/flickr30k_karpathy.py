"""Flickr30k in Karpathy's splits: 29,000 training, 1,014 validation and 1,000 test images, the field's "Flickr30k 1k".

Below the data root in `flickr30`: `dataset_flickr30k.json`, and the images in `flickr30k_images` or `flickr30k-images`.
"""

from subnetbench.datasets.parts.captioned import FLICKR_FOLDERS, flickr_images, text_image_data
from subnetbench.datasets.parts.karpathy import ARCHIVE, karpathy_splits
from subnetbench.harness.data import DataError, Dataset, Task, TaskData, protocols_of, register_dataset

LIST = "dataset_flickr30k.json"


@register_dataset("flickr30k_karpathy")
class Flickr30kKarpathy(Dataset):
    """Every caption of the 1,000 test images is a query."""

    tasks = ("text_image",)
    licence = "captions CC-BY-3.0; images under the terms of Flickr, for research"
    citation = "Karpathy and Fei-Fei, Deep Visual-Semantic Alignments for Generating Image Descriptions, CVPR 2015"
    source = f"{ARCHIVE} ({LIST}); images from https://shannon.cs.illinois.edu/DenotationGraph"

    def load(self, task: Task) -> TaskData:
        base = self.root / "flickr30"
        folder = flickr_images(base) or base / FLICKR_FOLDERS[0]
        try:
            splits = karpathy_splits(base / LIST, lambda image: folder / image.file)
        except DataError as error:
            raise DataError(f"{error}. Get it from {self.source}, below {base}") from None
        (protocol,) = protocols_of(self.name, task)
        return text_image_data(self, splits, protocol=protocol, base=base)
