"""Image-text file: your own images with your own texts, by a file that names them; text-to-image search.

`path` holds the images and `file`, a table (`.csv`, `.tsv`) or objects (`.jsonl`, `.json`) with an image and a caption
each, and perhaps a split. An image may have any number of captions, in rows of its own or, in JSON, in a list. Images are
turned upright as their EXIF orientation says.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from subnetbench.datasets.parts.captioned import split_of, text_image_data, without_images
from subnetbench.datasets.parts.own_captions import Columns, OwnImage, read_own_captions
from subnetbench.datasets.parts.retrieval import below
from subnetbench.datasets.parts.splits import hold_out
from subnetbench.harness.data import (
    CAPTIONS_APART,
    EQUAL_CAPTIONS,
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

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "dev": "validation", "test": "test"}


@register_dataset("image_text_file")
class ImageTextFile(Dataset):
    """Every caption of a test image is a query among the test images.

    Splits are those that the file names. Without any, test and validation images are drawn, or with `training: false` all
    images are searched; without a validation split, one is drawn from training.
    """

    tasks = ("text_image",)
    licence = "that of your images"
    citation = "none"
    source = "your own files"

    class Config(DatasetConfig):
        path: Annotated[str, Field(min_length=1, description="the folder, below the data root or absolute")] = (
            "own_images"
        )
        file: Annotated[
            str,
            Field(min_length=1, description="the file with images and captions, below `path`: .csv .tsv .jsonl .json"),
        ] = "captions.jsonl"
        image_column: Annotated[str, Field(min_length=1, description="column or field with an image's path")] = "image"
        caption_column: Annotated[
            str, Field(min_length=1, description="column or field with a caption; in JSON perhaps a list of them")
        ] = "caption"
        split_column: Annotated[
            str, Field(min_length=1, description="column or field with train, val or test; need not be there")
        ] = "split"
        training: Annotated[
            bool, Field(description="false: all images of a file without splits are searched, and none are trained on")
        ] = True
        test_fraction: Annotated[float, Field(gt=0, lt=1, description="of all images, if the file has no splits")] = 0.2
        validation_fraction: Annotated[
            float, Field(gt=0, lt=1, description="of the training images, if the file has no validation split")
        ] = 0.1
        equal_captions: Annotated[
            bool,
            Field(
                description="equal captions of several images are one query that any of them answers; false: one each"
            ),
        ] = True

    config: Config

    def load(self, task: Task) -> TaskData:
        config, base = self.config, self.root.absolute() / self.config.path
        if not base.is_dir():
            raise DataError(f"there is no folder {base}: put your images there or name another as data.path")
        columns = Columns(config.image_column, config.caption_column, config.split_column)
        file = below(base, config.file)
        images = read_own_captions(file, columns)
        splits = self._named(images, base, file) if images[0].split else self._drawn(images, base)
        of_file, drawn, searched = protocols_of(self.name, task)
        protocol = of_file if images[0].split else drawn if config.training else searched
        protocol += EQUAL_CAPTIONS if config.equal_captions else CAPTIONS_APART
        return text_image_data(self, splits, protocol=protocol, base=base)

    def _named(self, images: list[OwnImage], base: Path, file: Path) -> tuple[Split, Split, Split]:
        unknown = {image.split for image in images} - set(SPLITS)
        if unknown:
            raise DataError(f"{file} has a split {min(unknown)[:80]!r}; there are {', '.join(SPLITS)}")
        of_split = {name: [image for image in images if SPLITS[image.split] == name] for name in SPLITS.values()}
        if not of_split["test"]:
            raise DataError(f"{file} has no images of the split test")
        train, validation, test = (self._split(name, of_split[name], base) for name in ("train", "validation", "test"))
        if len(train) and not len(validation):
            train, validation = self._without(train, "validation", self.config.validation_fraction)
        return train, validation, test

    def _drawn(self, images: list[OwnImage], base: Path) -> tuple[Split, Split, Split]:
        whole = self._split("test", images, base)
        if not self.config.training:
            return without_images(whole, "train"), without_images(whole, "validation"), whole
        train, test = self._without(self._split("train", images, base), "test", self.config.test_fraction)
        train, validation = self._without(train, "validation", self.config.validation_fraction)
        return train, validation, test

    def _split(self, name: str, images: list[OwnImage], base: Path) -> Split:
        paths, captions = [below(base, image.path) for image in images], [image.captions for image in images]
        return split_of(name, paths, captions, upright=True, merged=self.config.equal_captions)

    def _without(self, split: Split, purpose: str, fraction: float) -> tuple[Split, Split]:
        """A split without a part that is drawn from it, and that part."""
        size = max(1, round(fraction * len(split)))
        if size >= len(split):
            raise UserError("leaves nothing to train on", field=f"data.{purpose}_fraction", value=fraction)
        return hold_out(split, size, self.config.split_seed, purpose)
