"""ROxford5k and RParis6k (Radenovic et al. 2018): 70 queries each, three difficulties, boxes around the object searched for.

`gnd_<name>.pkl` holds `imlist`, `qimlist` and, for each query, `easy`, `hard`, `junk` (indices into `imlist`) and `bbx`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from subnetbench.datasets.parts.plain_pickle import read_plain_pickle
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below, unlabelled
from subnetbench.harness.data import DataError, GroundTruth, Split, Task, TaskData, protocols_of
from subnetbench.harness.method import Difficulty, revisited_truth

Boxes = Annotated[
    bool, Field(description="cut queries to their boxes, as the protocol says; false: whole images, as PrunNet does")
]
METRICS = ("recall_at_1", "map_trapezoid", *(f"precision_oxford_at_{k}" for k in (1, 5, 10)))
HEADLINE = "map_trapezoid"  # of the Medium setting, which has no prefix
QUERIES = 70
LICENCE = "annotations free for research; photographs belong to their owners (Flickr)"
CITATION = "Radenovic, Iscen, Tolias, Avrithis, Chum. Revisiting Oxford and Paris. CVPR 2018, arXiv:1803.11285."


class RevisitedConfig(RetrievalConfig):
    """Adds the choice of what queries show."""

    boxes: Boxes = True


class RevisitedDataset(RetrievalDataset):
    """A test set without training images, for networks that were trained elsewhere."""

    licence = LICENCE
    citation = CITATION
    metrics = METRICS
    (protocol,) = protocols_of("roxford5k", "retrieval")

    config: RevisitedConfig

    def load(self, task: Task) -> TaskData:
        return replace(super().load(task), primary_metric=HEADLINE)

    def splits(self, base: Path) -> Parts:
        return Parts(unlabelled("train", []), revisited_test(self, base, self.folder, boxes=self.config.boxes))


def revisited_test(dataset: RetrievalDataset, base: Path, name: str, *, boxes: bool) -> Split:
    """The queries and the gallery of `roxford5k` or `rparis6k` in the folder `base`, in all three settings."""
    file = base / f"gnd_{name}.pkl"
    images, queries, lists, corners = _annotations(file if file.exists() else base.parent / file.name)
    paths, query_paths = ([below(base / "jpg", f"{image}.jpg") for image in part] for part in (images, queries))
    kept, kept_queries = dataset.present(paths), dataset.present(query_paths)
    position = np.full(len(images), -1)
    position[kept] = np.arange(len(kept))
    found = {part: [position[items][position[items] >= 0] for items in lists[part]] for part in lists}

    def setting(difficulty: Difficulty) -> GroundTruth:
        return revisited_truth(found["easy"], found["hard"], found["junk"], difficulty).subset(kept_queries)

    query = unlabelled("test", [query_paths[i] for i in kept_queries], corners[kept_queries] if boxes else None)
    gallery = unlabelled("gallery", [paths[i] for i in kept])
    truth = {"": setting("medium"), "easy_": setting("easy"), "hard_": setting("hard")}
    return replace(query, gallery=gallery, ground_truth=truth)


def _annotations(file: Path) -> tuple[list[str], list[str], dict[str, list[np.ndarray]], np.ndarray]:
    """Gallery images, query images, indices by list and query, and boxes (q, 4) in whole pixels."""
    content: Any = read_plain_pickle(file)
    try:
        images, queries, entries = ([*content[key]] for key in ("imlist", "qimlist", "gnd"))
        lists = {
            part: [np.array(entry[part], np.int64).ravel() for entry in entries] for part in ("easy", "hard", "junk")
        }
        boxes = np.array([entry["bbx"] for entry in entries], np.float64).reshape(len(queries), 4)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file} is not the published ground truth: {type(error).__name__}: {error}") from None
    if not all(isinstance(name, str) for name in [*images, *queries]) or len(entries) != len(queries):
        raise DataError(f"{file} is not the published ground truth: queries and their entries do not fit")
    for part in lists.values():
        for items in part:
            if len(items) and not 0 <= items.min() <= items.max() < len(images):
                raise DataError(f"{file} names an image that is not in its list of {len(images)}")
    if not np.isfinite(boxes).all() or (boxes[:, :2] >= boxes[:, 2:]).any() or np.abs(boxes).max(initial=0) > 10**6:
        raise DataError(f"{file} has a box that is none")
    return images, queries, lists, np.rint(boxes).astype(np.int64)
