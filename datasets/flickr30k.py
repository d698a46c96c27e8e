"""Flickr30k: 31,783 photographs with five captions each, for text search.

Below the data root in `flickr30`, either as Kaggle packs it (`results.csv` and `flickr30k_images/`, its one malformed
row included) or as torchvision expects it (`results_20130124.token` and `flickr30k-images/`).
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from subnetbench.datasets.parts.captioned import (
    FLICKR_FOLDERS,
    captioned_split,
    flickr_images,
    text_image_data,
    without_images,
)
from subnetbench.datasets.parts.captions import read_flickr
from subnetbench.datasets.parts.splits import stratified_order
from subnetbench.harness.data import (
    DataError,
    Dataset,
    DatasetConfig,
    Task,
    TaskData,
    UserError,
    protocols_of,
    register_dataset,
)

ANNOTATIONS = ("results.csv", "results_20130124.token")


@register_dataset("flickr30k")
class Flickr30k(Dataset):
    """Photographs of people and animals doing something, with captions by several people."""

    tasks = ("text_image",)
    licence = "captions CC-BY-3.0; images under the terms of Flickr, for research"
    citation = "Young et al., From image descriptions to visual denotations, TACL 2014"
    source = "https://shannon.cs.illinois.edu/DenotationGraph, or Kaggle's flickr-image-dataset"

    class Config(DatasetConfig):
        training: Annotated[
            bool,
            Field(description="true: test and validation images are drawn, the others train; false: all are searched"),
        ] = True
        held_out: Annotated[
            int, Field(ge=1, description="images of test and of validation each, drawn by split_seed")
        ] = 1000

    config: Config

    def load(self, task: Task) -> TaskData:
        base = self.root / "flickr30"
        annotations = next((base / name for name in ANNOTATIONS if (base / name).is_file()), None)
        folder = flickr_images(base)
        if annotations is None or folder is None:
            wanted = f"{' or '.join(ANNOTATIONS)}, and the images in {' or '.join(FLICKR_FOLDERS)}"
            raise DataError(f"Flickr30k is not in {base}: put there {wanted}. Get it from {self.source}")
        whole = captioned_split("test", folder, read_flickr(annotations))
        whole_set, drawn = protocols_of(self.name, task)
        if not self.config.training:
            splits = (without_images(whole, "train"), without_images(whole, "validation"), whole)
            return text_image_data(self, splits, protocol=whole_set, base=base)
        size = self.config.held_out
        if len(whole) <= 2 * size:
            fault = "leaves nothing to train on"
            raise UserError(fault, field="data.held_out", value=size, allowed=f"< {len(whole) / 2:g}")
        order = stratified_order(whole.labels, self.config.split_seed, "test")
        test, validation, train = (np.sort(part) for part in np.split(order, [size, 2 * size]))
        splits = (whole.subset(train, "train"), whole.subset(validation, "validation"), whole.subset(test))
        return text_image_data(self, splits, protocol=drawn.format(size=size), base=base)
