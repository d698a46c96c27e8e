"""Fashion-MNIST, CIFAR and digits: real layouts written small, read as torchvision reads them, and their faults."""

import gzip
import hashlib
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from subnetbench.datasets import fashion_mnist
from subnetbench.datasets.cifar10 import Cifar10
from subnetbench.datasets.cifar100 import Cifar100
from subnetbench.datasets.digits import Digits
from subnetbench.datasets.fashion_mnist import DEBIAN, FashionMnist
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.data.dataset import Dataset
from subnetbench.harness.data.splits import TaskData

CIFAR = {"cifar10": (Cifar10, torchvision.datasets.CIFAR10), "cifar100": (Cifar100, torchvision.datasets.CIFAR100)}


def load(dataset: type[Dataset], root: Path, **options: object) -> TaskData:
    return dataset(dataset.Config.parse(options, where="data"), root).load("classification")


def write_fashion(folder: Path, monkeypatch: pytest.MonkeyPatch, *, compress: bool) -> dict[str, np.ndarray]:
    """60 training and 20 test images in the IDX format; their digests replace the published ones."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": random.integers(0, 256, (60, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": np.arange(60, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": random.integers(0, 256, (20, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(20, dtype=np.uint8) % 10,
    }
    for name, array in arrays.items():
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        monkeypatch.setitem(fashion_mnist.FILES, name, hashlib.sha256(content).hexdigest())
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", folder.parent / "nowhere")
    return arrays


def write_cifar(root: Path, loader: type[torchvision.datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images a batch, as the Python version of CIFAR has them; their MD5 replaces the published one."""
    folder = root / loader.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    fine = loader.meta["key"] == "fine_label_names"
    classes = [f"class {number}" for number in range(4)]

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batches(names: list[str]) -> list[list[str]]:
        listed = []
        for name in names:
            labels = random.permutation(np.arange(24) % 4).tolist()
            pixels = random.integers(0, 256, (24, 3072), np.uint8)
            listed.append([name, write(name, {"data": pixels, "fine_labels" if fine else "labels": labels})])
        return listed

    monkeypatch.setattr(loader, "train_list", batches([name for name, _ in loader.train_list]))
    monkeypatch.setattr(loader, "test_list", batches([name for name, _ in loader.test_list]))
    name, key = loader.meta["filename"], loader.meta["key"]
    monkeypatch.setattr(loader, "meta", {"filename": name, "key": key, "md5": write(name, {key: classes})})


@pytest.mark.parametrize("compress", [False, True])
def test_fashion_mnist_is_read_as_torchvision_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool
) -> None:
    arrays = write_fashion(tmp_path / "FashionMNIST" / "raw", monkeypatch, compress=compress)
    data = load(FashionMnist, tmp_path, validation_size=20)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [40, 20, 20]
    assert torch.equal(data.test.images.tensor[:, 0], torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    assert data.test.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    if not compress:
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=False)
        assert torch.equal(data.test.images.tensor[:, 0], theirs.data)
        assert data.test.labels.tolist() == theirs.targets.tolist()
        assert data.test.classes == tuple(theirs.classes)


def test_fashion_mnist_of_the_system_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "system", monkeypatch, compress=True)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "system")
    assert len(load(FashionMnist, tmp_path / "empty", validation_size=20).train) == 40


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(tmp_path: Path) -> None:
    data = load(FashionMnist, tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert (np.bincount(data.validation.labels) == 500).all()
    assert (np.bincount(data.test.labels) == 1000).all()
    pixels = torch.cat([data.train.images.tensor, data.validation.images.tensor]).double() / 255
    assert data.mean == (round(pixels.mean().item(), 4),)
    assert data.std == (round(pixels.std(correction=0).item(), 4),)


def test_missing_incomplete_and_damaged_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist") as error:
        load(FashionMnist, tmp_path)
    folder = tmp_path / "FashionMNIST" / "raw"
    assert str(folder) in str(error.value)
    write_fashion(folder, monkeypatch, compress=True)
    path = folder / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:20], b"not gzip", gzip.compress(gzip.decompress(whole)[:-1] + b"\7")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
            load(FashionMnist, tmp_path, validation_size=20)
    path.unlink()
    with pytest.raises(DataError, match="incomplete: t10k-labels-idx1-ubyte"):
        load(FashionMnist, tmp_path, validation_size=20)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    dataset, loader = CIFAR[name]
    write_cifar(tmp_path, loader, monkeypatch)
    data = load(dataset, tmp_path, validation_size=8)
    theirs = {train: loader(str(tmp_path), train=train) for train in (True, False)}
    assert data.test.labels.tolist() == theirs[False].targets
    assert torch.equal(data.test.images.tensor, torch.from_numpy(theirs[False].data.transpose(0, 3, 1, 2)))
    assert data.test.classes == data.train.classes == tuple(theirs[True].classes)
    # Training and validation together are the official training images, each once.
    ours = sorted(
        (image.numpy().tobytes(), label)
        for split in (data.train, data.validation)
        for image, label in zip(split.images.tensor, split.labels.tolist(), strict=True)
    )
    pairs = zip(theirs[True].data.transpose(0, 3, 1, 2), theirs[True].targets, strict=True)
    assert ours == sorted((np.ascontiguousarray(image).tobytes(), label) for image, label in pairs)


@pytest.mark.parametrize("name", CIFAR)
def test_missing_incomplete_and_damaged_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    dataset, loader = CIFAR[name]
    with pytest.raises(DataError, match="missing") as error:
        load(dataset, tmp_path)
    assert loader.url in str(error.value)
    assert str(tmp_path / loader.base_folder) in str(error.value)
    write_cifar(tmp_path, loader, monkeypatch)
    path = tmp_path / loader.base_folder / loader.test_list[0][0]
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(DataError, match=f"missing: {path.name}"):
        load(dataset, tmp_path)
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"not the published files \(MD5\): {path.name}"):
        load(dataset, tmp_path)


@pytest.mark.parametrize("file", ["test_batch", "data_batch_2", "batches.meta"])
def test_a_foreign_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    write_cifar(tmp_path, torchvision.datasets.CIFAR10, monkeypatch)
    trap = tmp_path / "sprung"
    (tmp_path / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(DataError, match="not the published"):
        load(Cifar10, tmp_path)
    assert not trap.exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.path,)


def test_validation_and_subsets_are_stratified_and_drawn_by_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, torchvision.datasets.CIFAR10, monkeypatch)
    data = load(Cifar10, tmp_path, validation_size=20, train_size=40)
    assert np.bincount(data.validation.labels).tolist() == [5] * 4
    assert np.bincount(data.train.labels).tolist() == [10] * 4
    again = load(Cifar10, tmp_path, validation_size=20, train_size=40)
    assert again.digest == data.digest
    assert torch.equal(again.train.images.tensor, data.train.images.tensor)
    other = load(Cifar10, tmp_path, validation_size=20, train_size=40, split_seed=1)
    assert other.digest != data.digest
    assert not torch.equal(other.validation.images.tensor, data.validation.images.tensor)
    assert torch.equal(other.test.images.tensor, data.test.images.tensor)
    # What is left out of training does not move to validation.
    whole = load(Cifar10, tmp_path, validation_size=20)
    assert torch.equal(whole.validation.images.tensor, data.validation.images.tensor)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"validation_size": 3}, "data.validation_size"),
        ({"validation_size": 120}, "data.validation_size"),
        ({"validation_size": 20, "train_size": 101}, "data.train_size"),
        ({"validation_size": 20, "train_size": 3}, "data.train_size"),
    ],
)
def test_impossible_sizes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, int], field: str
) -> None:
    write_cifar(tmp_path, torchvision.datasets.CIFAR10, monkeypatch)
    with pytest.raises(UserError, match="allowed: 4 to") as error:
        load(Cifar10, tmp_path, **options)
    assert error.value.field == field


def test_digits() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    data = load(Digits, Path("nowhere"))
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [1097, 200, 500]
    assert data.test.images.tensor.shape == (500, 1, 8, 8)
    theirs = np.round(sklearn_datasets.load_digits().images * 255 / 16)
    ours = torch.cat([split.images.tensor for split in splits])[:, 0].numpy()
    assert sorted(image.tobytes() for image in ours) == sorted(i.tobytes() for i in theirs.astype(np.uint8))
    assert torch.equal(load(Digits, Path("nowhere"), split_seed=3).test.images.tensor, data.test.images.tensor)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load(Digits, Path("nowhere"))


def test_what_cannot_be_fetched_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cifar-10-python"):
        Cifar10(Cifar10.Config(), tmp_path).fetch()
