"""MSCOCO captions 2017: 118,287 training and 5,000 validation images with five captions each, for text search.

Below the data root, in `mscoco` or `coco`, as the published archives unpack: `train2017/*.jpg`, `val2017/*.jpg` and
`annotations/captions_{train,val}2017.json` (or `annotations_trainval2017/annotations/...`).

val2017 is the test, searched as a whole; validation is cut from train2017. The field's "COCO 5k" is `coco_karpathy`.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from subnetbench.datasets.parts.captioned import captioned_split, coco_folder, text_image_data, without_images
from subnetbench.datasets.parts.captions import read_coco
from subnetbench.datasets.parts.splits import hold_out
from subnetbench.harness.data import (
    DataError,
    Dataset,
    DatasetConfig,
    Split,
    Task,
    TaskData,
    UserError,
    protocols_of,
    register_dataset,
)


@register_dataset("coco")
class Coco(Dataset):
    """Photographs of everyday scenes with captions by several people."""

    tasks = ("text_image",)
    licence = "annotations CC-BY-4.0; images under the terms of Flickr"
    citation = "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014"
    source = "https://cocodataset.org (train2017.zip, val2017.zip, annotations_trainval2017.zip)"

    class Config(DatasetConfig):
        training: Annotated[
            bool, Field(description="false: only val2017 is read, for encoders that are not trained here")
        ] = True
        validation_size: Annotated[
            int, Field(ge=1, description="images of train2017 set aside to select by, drawn by split_seed")
        ] = 5000

    config: Config

    def load(self, task: Task) -> TaskData:
        base = coco_folder(self.root)
        test = self._split(base, "val2017", "test")
        if self.config.training:
            train = self._split(base, "train2017", "train")
            if self.config.validation_size >= len(train):
                raise UserError(
                    "leaves nothing to train on",
                    field="data.validation_size",
                    value=self.config.validation_size,
                    allowed=f"< {len(train)}",
                )
            train, validation = hold_out(train, self.config.validation_size, self.config.split_seed, "validation")
        else:
            train, validation = without_images(test, "train"), without_images(test, "validation")
        (protocol,) = protocols_of(self.name, task)
        return text_image_data(self, (train, validation, test), protocol=protocol, base=base)

    def _split(self, base: Path, year: str, name: str) -> Split:
        file = f"captions_{year}.json"
        places = [base / "annotations" / file, base / "annotations_trainval2017" / "annotations" / file]
        annotations = next((path for path in places if path.is_file()), places[0])
        try:
            return captioned_split(name, base / year, read_coco(annotations))
        except DataError as error:
            raise DataError(f"{error}. Get MSCOCO 2017 from {self.source} and unpack it below {base}") from None
