"""Own split files, ImageNet's folders, and retrieval of classes that training has seen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml

from subnetbench.datasets import imagenet
from subnetbench.datasets.cifar100 import Cifar100
from subnetbench.datasets.imagenet import Imagenet
from subnetbench.datasets.parts.cifar import Split
from subnetbench.datasets.split_file import SplitFile
from subnetbench.harness.core.errors import DataError
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.evaluation.relevance import Relevance

BARE = {
    "train": [["a/1.png", "a/2.png"], ["b/1.png"], ["c/1.png", "c/2.png"]],
    "val": [["d/1.png", "d/2.png"]],
    "test": [["e/1.png", "e/2.png"], ["f/1.png", "f/2.png"]],
}
NAMED = {split: {members[0][0]: members for members in classes} for split, classes in BARE.items()}


@pytest.fixture
def own(tmp_path, write_images) -> Path:
    base = tmp_path / "own_images"
    write_images(base, *(path for classes in BARE.values() for members in classes for path in members))
    return base


def as_text(content) -> str:
    rows = [(path, name, split) for split, classes in content.items() for name, ms in classes.items() for path in ms]
    return "".join(" ".join(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("splits.json", json.dumps(NAMED)),
        ("splits.yaml", yaml.safe_dump(NAMED, sort_keys=False)),
        ("splits.txt", as_text(NAMED)),
        ("splits.json", json.dumps({"train": NAMED["train"], "validation": NAMED["val"], "test": NAMED["test"]})),
    ],
)
def test_the_same_split_in_every_format(own, load, listed, file, content):
    (own / file).write_text(content)
    data = load(SplitFile, file=file)
    for name, split in (("train", data.train), ("val", data.validation), ("test", data.test)):
        expected = [(f"own_images/{path}", key) for key, members in NAMED[name].items() for path in members]
        assert listed(split) == expected
    assert data.train.labels.tolist() == [0, 0, 1, 2, 2]


def test_classes_without_names(own, load, listed):
    (own / "splits.json").write_text(json.dumps(BARE))
    data = load(SplitFile)
    assert data.train.classes == ("0", "1", "2")
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    both = load(SplitFile, validation_classes=0)
    assert both.train.labels.tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert listed(both.validation) == listed(data.validation)


def test_queries_and_gallery_without_validation(own, load):
    content = {"train": NAMED["train"], "query": {"e": ["e/1.png"]}, "gallery": {"f": ["f/1.png"], "e": ["e/2.png"]}}
    (own / "splits.json").write_text(json.dumps(content))
    data = load(SplitFile, validation_classes=1)
    assert (data.train.classes, data.validation.classes) == (("a", "b"), ("c",))
    assert Relevance.settings(data.test)[""].positives(np.array([0])).tolist() == [[1]]


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("splits.json", "{", "not valid JSON"),
        ("splits.json", "[" * 100_000, "not valid JSON"),
        ("splits.yaml", "train: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("splits.json", "[1]", "mapping of splits"),
        ("splits.json", '{"holdout": {"a": ["a/1.png"]}}', "holdout"),
        ("splits.json", '{"train": {"a": "a/1.png"}}', "list of paths"),
        ("splits.json", '{"train": {"a": [1]}}', "list of paths"),
        ("splits.json", '{"train": {"a": ["../x.png"]}}', "outside"),
        ("splits.json", '{"train": {"a": ["a/1.png"]}}', "no split 'test'"),
        ("splits.txt", "a/1.png train\n", "expected path class split"),
        ("missing.json", None, "missing"),
    ],
)
def test_split_files_that_are_wrong(own, load, file, content, match):
    if content is not None:
        (own / file).write_text(content)
    with pytest.raises(DataError, match=match):
        load(SplitFile, file=file)


@pytest.fixture
def small_imagenet(tmp_path, write_images, monkeypatch) -> Path:
    base = tmp_path / "imagenet"
    wnids = ("n01440764", "n01443537")
    write_images(base / "train", *(f"{wnid}/{wnid}_{number}.JPEG" for wnid in wnids for number in range(5)))
    write_images(base / "val", *(f"{wnids[number % 2]}/ILSVRC2012_val_{number}.JPEG" for number in range(4)))
    for name, value in (("CLASSES", 2), ("TRAIN_IMAGES", 10), ("TEST_IMAGES", 4)):
        monkeypatch.setattr(imagenet, name, value)
    return base


def test_imagenet_in_both_tasks(small_imagenet, tmp_path):
    dataset = Imagenet(Imagenet.Config(validation_size=2), tmp_path)
    classification, retrieval = dataset.load("classification"), dataset.load("retrieval")
    theirs = torchvision.datasets.ImageFolder(str(small_imagenet / "val"))
    for data in (classification, retrieval):
        assert [str(path) for path in data.test.images.paths] == [path for path, _ in theirs.samples]
        assert data.test.labels.tolist() == theirs.targets
        assert (len(data.train), len(data.validation)) == (8, 2)
    assert classification.digest != retrieval.digest
    assert "seen classes" in retrieval.protocol
    next((small_imagenet / "val").rglob("*.JPEG")).unlink()
    with pytest.raises(DataError, match=r"10 training and 3 validation images, expected 2, 10 and 4"):
        dataset.load("retrieval")


def test_cifar100_as_retrieval(tmp_path, monkeypatch):
    def read(loader, root):
        def split(name, size):
            labels = np.arange(size) % 100
            return Split(name=name, images=TensorImages(torch.zeros(size, 3, 32, 32, dtype=torch.uint8)), labels=labels)

        return split("train", 600), split("test", 200)

    monkeypatch.setattr("subnetbench.datasets.cifar100.read_cifar", read)
    data = Cifar100(Cifar100.Config(validation_size=200), tmp_path).load("retrieval")
    assert (data.task, len(data.train), len(data.validation), len(data.test)) == ("retrieval", 400, 200, 200)
    assert Relevance.settings(data.test)[""].counts.tolist() == [1] * 200


def listing(names) -> str:
    train = "".join(f"  {name}: [{name}/1.png, {name}/2.png]\n" for name in names)
    return f"train:\n{train}test:\n  z: [z/1.png, z/2.png]\n"


@pytest.mark.parametrize("names", [("no", "off", "yes", "on"), ("1", "01", "001", "0x1"), ("1e3", "1000", "null", "~")])
def test_names_of_classes_stay_as_they_are_written(own, load, write_images, names):
    write_images(own, *(f"{name}/{i}.png" for name in (*names, "z") for i in (1, 2)))
    (own / "splits.yaml").write_text(listing(names))
    assert load(SplitFile, file="splits.yaml", validation_classes=0).train.classes == names


@pytest.mark.parametrize("file", ["splits.yaml", "splits.json"])
def test_a_class_that_is_named_twice_is_an_error(own, load, file):
    row = '"train": {"a": ["a/1.png"], "a": ["a/2.png"]}, "test": {"e": ["e/1.png"]}'
    (own / file).write_text("{" + row + "}")
    with pytest.raises(DataError, match="twice"):
        load(SplitFile, file=file)


def test_a_byte_order_mark_is_no_part_of_a_name(own, load, listed):
    for file, text in (("plain.txt", as_text(NAMED)), ("marked.txt", "\ufeff" + as_text(NAMED))):
        (own / file).write_text(text, encoding="utf-8")
    plain, marked = (load(SplitFile, file=file, partial=True) for file in ("plain.txt", "marked.txt"))
    assert listed(marked.train) == listed(plain.train)
    (own / "marked.json").write_text("\ufeff" + json.dumps(NAMED), encoding="utf-8")
    assert listed(load(SplitFile, file="marked.json").train) == listed(plain.train)


def test_the_own_image_of_a_query_is_no_hit(own, load):
    members = {"e": ["e/1.png", "e/2.png"], "f": ["f/1.png", "f/2.png"]}
    content = {"train": NAMED["train"], "query": members, "gallery": members}
    (own / "splits.json").write_text(json.dumps(content))
    data = load(SplitFile, validation_classes=1)
    relevance = Relevance.settings(data.test)[""]
    assert relevance.own.tolist() == [0, 1, 2, 3]
    assert relevance.counts.tolist() == [1, 1, 1, 1]
    assert "own image left out of the ranking of 4 queries" in data.protocol
    apart = {"train": NAMED["train"], "query": {"e": ["e/1.png"]}, "gallery": {"e": ["e/2.png"]}}
    (own / "splits.json").write_text(json.dumps(apart))
    assert "own image" not in load(SplitFile, validation_classes=1).protocol
