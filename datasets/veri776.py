"""VeRi-776: 50000 photographs of 776 vehicles by 20 cameras; queries search for the vehicle in other cameras.

The folder `VeRi` holds `image_train`, `image_query`, `image_test`, `train_label.xml` and `test_label.xml`. What a query's
own camera saw of its vehicle is ignored, as in re-identification generally.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from subnetbench.datasets.parts.annotations import xml_attributes
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below, with_gallery
from subnetbench.harness.data import DataError, GroundTruth, Split, protocols_of, register_dataset


@register_dataset("veri776")
class Veri776(RetrievalDataset):
    """576 vehicles train; 1678 queries of 200 others search among 11579 images."""

    licence = "non-commercial research, on request from the authors"
    citation = "Liu, Liu, Mei, Ma. A deep learning-based approach to progressive vehicle re-identification. ECCV 2016."
    source = "https://github.com/JDAI-CV/VeRidataset"
    folder = "VeRi"
    counts = {
        "train classes": 576,
        "train images": 37778,
        "test classes": 200,
        "queries": 1678,
        "gallery images": 11579,
    }
    metrics = ("recall_at_1", "recall_at_5", "recall_at_10", "map")
    (protocol,) = protocols_of("veri776", "retrieval")

    class Config(RetrievalConfig):
        pass

    def splits(self, base: Path) -> Parts:
        train, _ = self._listed(base, "train", _labels(base / "train_label.xml"))
        listed = _labels(base / "test_label.xml")
        gallery, gallery_cameras = self._listed(base, "test", listed)
        of_name = {name: (vehicle, camera) for name, vehicle, camera in listed}
        files = sorted(path.name for path in (base / "image_query").glob("*.jpg"))
        queries = [(name, *(of_name.get(name) or _from_name(name))) for name in files]
        query, query_cameras = self._listed(base, "query", queries)
        test = with_gallery(query, gallery)
        truth = _other_cameras(test, query_cameras, gallery_cameras)
        return Parts(train, replace(test, ground_truth={"": truth}))

    def _listed(self, base: Path, part: str, rows: list[tuple[str, str, str]]) -> tuple[Split, np.ndarray]:
        """The images of a part, and the camera of each."""
        paths = [below(base / f"image_{part}", name) for name, _, _ in rows]
        split = self.image_split(part, paths, [vehicle for _, vehicle, _ in rows])
        return split, np.array([camera for _, _, camera in rows])[self.present(paths)]


def _labels(path: Path) -> list[tuple[str, str, str]]:
    """Image name, vehicle and camera of each item."""
    rows = xml_attributes(path, "Item", ("imageName", "vehicleID", "cameraID"))
    if not rows:
        raise DataError(f"{path} lists no images")
    return [(name, vehicle, camera) for name, vehicle, camera in rows]


def _from_name(name: str) -> tuple[str, str]:
    """Vehicle and camera from a name such as 0002_c002_00030600_0.jpg."""
    found = re.match(r"(\d+)_(c\d+)_", name)
    if found is None:
        raise DataError(f"the query {name} is not in test_label.xml, and its name holds no vehicle and camera")
    return found[1], found[2]


def _other_cameras(test: Split, query_cameras: np.ndarray, gallery_cameras: np.ndarray) -> GroundTruth:
    assert test.gallery is not None
    positives, ignored = [], []
    for label, camera in zip(test.labels, query_cameras, strict=True):
        same = test.gallery.labels == label
        positives.append(np.flatnonzero(same & (gallery_cameras != camera)))
        ignored.append(np.flatnonzero(same & (gallery_cameras == camera)))
    return GroundTruth(tuple(positives), tuple(ignored))
