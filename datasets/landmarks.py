"""Google Landmarks v2: 1.6 million photographs of 81313 landmarks (clean); retrieval among 761757 others.

The folder `google-landmark` holds `train`, `index` and `test` as published, images as `train/a/b/c/abc....jpg`, or the
lists of the PrunNet code. The test may also be ROxford5k or RParis6k.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from subnetbench.datasets.parts.annotations import columns, csv_columns, text_lines
from subnetbench.datasets.parts.folders import class_folders
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below, unlabelled
from subnetbench.datasets.parts.revisited import HEADLINE, METRICS, Boxes, revisited_test
from subnetbench.harness.data import DataError, GroundTruth, Split, TaskData, protocols_of, register_dataset

CLEAN = "train/train_clean.csv"
# Query image, and the gallery images that show the same landmark.
Queries = list[tuple[Path, list[str]]]


@register_dataset("landmarks")
class Landmarks(RetrievalDataset):
    """Training on the clean list, own lists or class folders; test with the private or public ground truth."""

    licence = "annotations CC-BY-4.0; images under their own free licences"
    citation = "Weyand, Araujo, Cao, Sim. Google Landmarks Dataset v2. CVPR 2020, arXiv:2004.01804."
    source = "https://github.com/cvdfoundation/google-landmark"
    folder = "google-landmark"
    counts = {"train classes": 81313, "train images": 1580470, "gallery images": 761757}
    queries = {"private": 750, "public": 379}
    metrics = ("recall_at_1", "map_at_100")
    (protocol,) = protocols_of("landmarks", "retrieval")

    class Config(RetrievalConfig):
        train_list: Annotated[
            str,
            Field(
                min_length=1,
                description="train_clean.csv, train.csv, a text file of `path label` lines, or a folder of class folders",
            ),
        ] = CLEAN
        test: Annotated[
            Literal["gldv2", "roxford5k", "rparis6k"],
            Field(description="the last two lie in folders of their own below the data root"),
        ] = "gldv2"
        usage: Annotated[Literal["private", "public"], Field(description="which queries of gldv2")] = "private"
        boxes: Boxes = True

    config: Config

    def expected(self) -> Mapping[str, int]:
        config = self.config
        counts = {**self.counts, "queries": self.queries[config.usage]} if config.test == "gldv2" else {}
        return {
            name: count for name, count in counts.items() if config.train_list == CLEAN or not name.startswith("train")
        }

    @property
    def _test_folder(self) -> Path:
        return self.root.absolute() / self.config.test

    def splits(self, base: Path) -> Parts:
        name = self.config.test
        if name != "gldv2":
            return Parts(self._train(base), revisited_test(self, self._test_folder, name, boxes=self.config.boxes))
        return Parts(self._train(base), self._test(base))

    def _ready(self, parts: Parts, base: Path) -> TaskData:
        if self.config.test == "gldv2":
            return replace(super()._ready(parts, base), primary_metric="map_at_100")
        # Training and test images lie in different folders.
        data = super()._ready(parts, Path(os.path.commonpath([base, self._test_folder])))
        return replace(data, test=replace(data.test, metrics=METRICS), primary_metric=HEADLINE)

    def _train(self, base: Path) -> Split:
        source = below(base, self.config.train_list)
        if source.is_dir():
            return class_folders(source, "train")
        if source.suffix == ".txt":
            rows = columns(source, ("path", "label"))
            return self.image_split("train", [below(base, path) for path, _ in rows], [label for _, label in rows])
        if "images" in (text_lines(source) or [""])[0].split(","):
            clean = csv_columns(source, ("landmark_id", "images"))
            pairs = [(image, landmark) for landmark, images in clean for image in images.split()]
        else:
            pairs = [(image, landmark) for image, landmark in csv_columns(source, ("id", "landmark_id"))]
        return self.image_split("train", [_file(base, "train", image) for image, _ in pairs], [key for _, key in pairs])

    def _test(self, base: Path) -> Split:
        usage = self.config.usage
        lists = base / f"gldv2_{usage}_query_gt.txt"
        gallery, queries = _listed(base, lists) if lists.exists() else _published(base, usage)
        names, paths = list(gallery), list(gallery.values())
        kept = self.present(paths)
        position_of = {names[i]: position for position, i in enumerate(kept)}
        kept_queries = self.present([path for path, _ in queries])
        positives = []
        for i in kept_queries:
            path, wanted = queries[i]
            unknown = [name for name in wanted if name not in gallery]
            if unknown:
                raise DataError(f"the ground truth of {path.name} names {unknown[0]!r}, which is not in the gallery")
            positives.append(np.array([position_of[name] for name in wanted if name in position_of], np.int64))
        nothing = tuple(np.empty(0, np.int64) for _ in positives)
        return replace(
            unlabelled("test", [queries[i][0] for i in kept_queries]),
            gallery=unlabelled("gallery", [paths[i] for i in kept]),
            ground_truth={"": GroundTruth(tuple(positives), nothing)},
        )


def _published(base: Path, usage: str) -> tuple[dict[str, Path], Queries]:
    """Gallery images by id, and queries with the ids that are right, as the authors give them."""
    gallery = {image: _file(base, "index", image) for (image,) in csv_columns(base / "index" / "index.csv", ["id"])}
    rows = csv_columns(base / "test" / "retrieval_solution_v2.1.csv", ("id", "images", "Usage"))
    return gallery, [
        (_file(base, "test", image), images.split()) for image, images, used in rows if used.lower() == usage
    ]


def _listed(base: Path, truth: Path) -> tuple[dict[str, Path], Queries]:
    """The same from the lists of the PrunNet code, in which a gallery image goes by its number."""
    rows = columns(base / "gldv2_gallery_list.txt", ("path", "number"))
    gallery = {number: below(base, path) for path, number in rows}
    queries = [
        (below(base, path), numbers.split(",")) for path, _, numbers in columns(truth, ("path", "number", "ids"))
    ]
    return gallery, queries


def _file(base: Path, part: str, image: str) -> Path:
    """Where an image lies: `train/a/b/c/abc....jpg`."""
    if len(image) < 3:
        raise DataError(f"{image!r} is no id of an image")
    return below(base, f"{part}/{image[0]}/{image[1]}/{image[2]}/{image}.jpg")
