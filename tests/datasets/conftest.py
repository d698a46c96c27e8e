"""Shared by the tests of data sets: small images, and loading a set from a folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subnetbench.datasets.parts.retrieval import RetrievalDataset
from subnetbench.harness.data.dataset import Dataset
from subnetbench.harness.data.splits import TaskData


@pytest.fixture
def write_images() -> Callable[..., None]:
    """Write small images that all differ; the size of each is its index in the list."""

    def write(folder: Path, *names: str) -> None:
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (12, 13 + number % 7, 3), np.uint8)
            Image.fromarray(pixels).save(path)

    return write


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., TaskData]:
    """Load a retrieval set from below `tmp_path`."""

    def load_from(dataset: type[Dataset], **options: object) -> TaskData:
        return dataset(dataset.Config.parse(options, where="data"), tmp_path).load("retrieval")

    return load_from


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """(path below `tmp_path`, class name) of each image of some splits, in order."""

    def of(*splits) -> list[tuple[str, str]]:
        return [
            (path.relative_to(tmp_path).as_posix(), split.classes[label])
            for split in splits
            for path, label in zip(split.images.paths, split.labels, strict=True)
        ]

    return of


@pytest.fixture
def counted(monkeypatch):
    """Let a data set expect the numbers of a small tree instead of the published ones."""

    def expect(dataset: type[RetrievalDataset], **counts: int) -> None:
        monkeypatch.setattr(dataset, "counts", {name.replace("_", " "): number for name, number in counts.items()})

    return expect


@pytest.fixture
def of_library(tmp_path: Path) -> Callable[..., list[tuple[str, int]]]:
    """(path below `tmp_path`, label) of each image of a data set of pytorch-metric-learning."""

    def of(dataset) -> list[tuple[str, int]]:
        below = len(str(tmp_path)) + 1
        return [(path[below:], label) for path, label in zip(dataset.paths, dataset.labels, strict=True)]

    return of
