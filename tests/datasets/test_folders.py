"""Tiny ImageNet and image folders: trees of files, read as torchvision reads them, and their faults."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from subnetbench.datasets import tiny_imagenet
from subnetbench.datasets.image_folder import ImageFolder
from subnetbench.datasets.tiny_imagenet import TinyImagenet
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.dataset import Dataset
from subnetbench.harness.data.images import ImageFiles
from subnetbench.harness.data.splits import Split, TaskData

WNIDS = ("n01443537", "n01629819", "n02084071")


def load(dataset: type[Dataset], root: Path, task: Task = "classification", **options: object) -> TaskData:
    return dataset(dataset.Config.parse(options, where="data"), root).load(task)


def write_image(path: Path, seed: int, size: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def same_as_torchvision(split: Split, folder: Path) -> None:
    theirs = torchvision.datasets.ImageFolder(str(folder))
    assert [str(path) for path in split.images.paths] == [path for path, _ in theirs.samples]
    assert split.labels.tolist() == theirs.targets
    for ours, (image, _) in zip(split.images.read(np.arange(len(split))), theirs, strict=True):
        np.testing.assert_array_equal(ours, np.asarray(image).transpose(2, 0, 1))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny ImageNet with 3 classes, 30 training and 6 validation images, laid out as in the published archive."""
    folder = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        for number in range(10):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", number)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
    lines = []
    for number in range(6):
        write_image(folder / "val" / "images" / f"val_{number}.JPEG", 100 + number)
        lines.append(f"val_{number}.JPEG\t{WNIDS[(number * 2) % 3]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn01629819\tsalamander\n")
    for name, value in (("CLASSES", 3), ("TRAIN_IMAGES", 30), ("TEST_IMAGES", 6)):
        monkeypatch.setattr(tiny_imagenet, name, value)
    return folder


def test_tiny_imagenet(tiny: Path) -> None:
    data = load(TinyImagenet, tiny.parent, validation_size=6)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [24, 6, 6]
    assert data.train.classes == ("goldfish, Carassius auratus", "salamander", "n02084071")
    assert data.test.labels.tolist() == [0, 2, 1, 0, 2, 1]
    assert [path.name for path in data.test.images.paths] == [f"val_{number}.JPEG" for number in range(6)]
    assert np.bincount(data.validation.labels).tolist() == [2, 2, 2]
    assert data.test.images.read(np.array([5]))[0].shape == (3, 64, 64)
    train = {path for split in (data.train, data.validation) for path in split.images.paths}
    assert len(train) == 30
    theirs = dict(torchvision.datasets.ImageFolder(str(tiny / "train")).samples)
    for split in (data.train, data.validation):
        assert [theirs[str(path)] for path in split.images.paths] == split.labels.tolist()


def test_missing_and_incomplete_tiny_imagenet(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip"):
        load(TinyImagenet, tmp_path / "elsewhere")
    annotations = tiny / "val" / "val_annotations.txt"
    text = annotations.read_text()
    for damaged in ("../../secret\tn01443537\n", "val_0.JPEG\n", "val_0.JPEG\tdog\n"):
        annotations.write_text(damaged)
        with pytest.raises(DataError, match="has a line that is not"):
            load(TinyImagenet, tmp_path)
    annotations.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="not text"):
        load(TinyImagenet, tmp_path)
    annotations.unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt is missing"):
        load(TinyImagenet, tmp_path)
    annotations.write_text(text)
    (tiny / "val" / "images" / "val_3.JPEG").unlink()
    with pytest.raises(DataError, match="30 training and 5 validation"):
        load(TinyImagenet, tmp_path)
    (tiny / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load(TinyImagenet, tmp_path)


def write_classes(folder: Path, classes: dict[str, int], seed: int = 0) -> None:
    for name, count in classes.items():
        for number in range(count):
            # Odd ones lie a folder deeper; sizes differ.
            deeper = "more/" * (number % 2)
            seed += 1
            write_image(folder / name / f"{deeper}{number}.png", seed, size=8 + number % 3)


def test_folders_of_classes_are_split_by_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"cat": 10, "dog": 20, "emu": 30})
    data = load(ImageFolder, tmp_path)
    assert [np.bincount(split.labels).tolist() for split in (data.train, data.validation, data.test)] == [
        [7, 14, 22],
        [1, 2, 2],
        [2, 4, 6],
    ]
    paths = [path for split in (data.train, data.validation, data.test) for path in split.images.paths]
    assert len(set(paths)) == 60
    theirs = dict(torchvision.datasets.ImageFolder(str(tmp_path / "images")).samples)
    for split in (data.train, data.validation, data.test):
        assert [theirs[str(path)] for path in split.images.paths] == split.labels.tolist()
        assert split.classes == ("cat", "dog", "emu")
    assert data.image_size is None


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        write_classes(tmp_path / split, {"cat": 3, "dog": 4}, seed=100 * seed)
    data = load(ImageFolder, tmp_path, path=str(tmp_path))
    same_as_torchvision(data.train, tmp_path / "train")
    same_as_torchvision(data.validation, tmp_path / "val")
    same_as_torchvision(data.test, tmp_path / "test")


def test_train_and_val_alone_make_val_the_test(tmp_path: Path) -> None:
    write_classes(tmp_path / "images" / "train", {"cat": 10, "dog": 10})
    write_classes(tmp_path / "images" / "val", {"dog": 2}, seed=50)
    data = load(ImageFolder, tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [18, 2, 2]
    assert data.test.labels.tolist() == [1, 1]  # counted as in training, where cat is 0


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "images" / "train", {"cat": 5, "dog": 5, "emu": 5, "fox": 5})
    write_classes(tmp_path / "images" / "test", {"yak": 2}, seed=50)
    with pytest.raises(DataError, match="test has classes that training lacks: yak"):
        load(ImageFolder, tmp_path)
    assert load(ImageFolder, tmp_path, "retrieval", validation_fraction=0.5).test.classes == ("yak",)


def test_retrieval_draws_whole_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {**{f"bird {number}": 3 for number in range(9)}, "single": 1})
    data = load(ImageFolder, tmp_path, "retrieval", test_fraction=0.4, validation_fraction=0.3)
    names = [set(split.classes) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, names)) == len(set().union(*names))
    assert "single" not in names[1] | names[2]  # nothing to find for it
    for split in (data.train, data.validation, data.test):
        assert set(split.labels) == set(range(len(split.classes)))
        assert [path.relative_to(tmp_path / "images").parts[0] for path in split.images.paths] == [
            split.classes[label] for label in split.labels
        ]
    seeds = [load(ImageFolder, tmp_path, "retrieval", split_seed=seed, test_fraction=0.4) for seed in range(4)]
    assert len({data.digest for data in seeds}) == 4
    assert len({data.test.classes for data in seeds}) > 1


def test_digest_sees_names_lengths_and_draws(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"cat": 10, "dog": 10})
    first = load(ImageFolder, tmp_path).digest
    assert load(ImageFolder, tmp_path).digest == first
    assert load(ImageFolder, tmp_path, train_size=4).digest != first
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    assert load(ImageFolder, moved).digest == first
    write_image(moved / "images" / "cat" / "0.png", 7, size=20)
    assert load(ImageFolder, moved).digest != first


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path"):
        load(ImageFolder, tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="one folder a class"):
        load(ImageFolder, tmp_path)
    write_classes(tmp_path / "images", {"cat": 3, "dog": 3})
    (tmp_path / "images" / "fish").mkdir()
    with pytest.raises(DataError, match="fish"):
        load(ImageFolder, tmp_path)


def test_too_few_images_to_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"cat": 1, "dog": 9})
    with pytest.raises(UserError, match=r"data\.test_fraction"):
        load(ImageFolder, tmp_path)


def test_an_undecodable_image_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"cat": 10, "dog": 10})
    for path in (tmp_path / "images" / "cat").rglob("*.png"):
        path.write_bytes(b"not an image")
    data = load(ImageFolder, tmp_path)
    with pytest.raises(DataError, match=r"cat/.*\.png cannot be decoded"):
        data.train.images.read(np.arange(len(data.train)))


def test_grey_transparent_and_truncated_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    opaque = np.full_like(pixels, 255)
    Image.fromarray(np.dstack([pixels] * 3 + [opaque])).save(tmp_path / "rgba.png")
    images = ImageFiles([tmp_path / "grey.png", tmp_path / "rgba.png"]).read(np.arange(2))
    for image in images:
        np.testing.assert_array_equal(image, np.stack([pixels] * 3))
    whole = (tmp_path / "grey.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.png cannot be decoded"):
        ImageFiles([tmp_path / "half.png"]).read(np.arange(1))


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("training", "dev", "testing"),
    ],
)
def test_folders_of_splits_by_any_of_their_usual_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for seed, split in enumerate(names):
        write_classes(tmp_path / "images" / split, {"cat": 3, "dog": 4}, seed=100 * seed)
    data = load(ImageFolder, tmp_path)
    assert [split.images.paths[0].parts[-3] for split in (data.train, data.validation, data.test)] == list(names)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [7, 7, 7]


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("train", "val", "valid", "test"), "two folders for validation: val and valid"),
        (("valid", "test"), "no folder of training images"),
        (("train", "more"), "no folder to test on"),
    ],
)
def test_folders_of_splits_never_become_classes(tmp_path: Path, names: tuple[str, ...], fault: str) -> None:
    for split in names:
        write_classes(tmp_path / "images" / split, {"cat": 3, "dog": 4})
    with pytest.raises(DataError, match=fault):
        load(ImageFolder, tmp_path)


def test_folders_beside_the_splits_are_said_to_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "test", "extra"):
        write_classes(tmp_path / "images" / split, {"cat": 5, "dog": 5})
    load(ImageFolder, tmp_path)
    assert "folders beside the splits are not read: extra" in caplog.text


def test_what_systems_add_is_no_data(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"cat": 10, "dog": 10})
    before = load(ImageFolder, tmp_path).digest
    for name in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints", "dog/__MACOSX"):
        write_image(tmp_path / "images" / name / "x.png", 3)
    write_image(tmp_path / "images" / "cat" / "._0.png", 3)
    (tmp_path / "images" / "dog" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "images" / "readme.txt").write_text("beside the classes")
    assert load(ImageFolder, tmp_path).digest == before


def test_files_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_classes(tmp_path / "images", {"cat": 10, "dog": 10})
    for name in ("a.heic", "b.HEIC", "c.txt"):
        (tmp_path / "images" / "cat" / name).write_bytes(b"x")
    load(ImageFolder, tmp_path)
    assert "3 files are not read, for they are no images: 2 x .heic, 1 x .txt" in caplog.text


def test_links(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"cat": 10, "dog": 10})
    whole = load(ImageFolder, tmp_path).digest
    up = tmp_path / "images" / "cat" / "up"
    up.symlink_to("..")
    (tmp_path / "images" / "cat" / "self").symlink_to(".")
    assert load(ImageFolder, tmp_path).digest == whole
    # A link to a folder elsewhere is read.
    write_classes(tmp_path / "elsewhere", {"more": 5}, seed=70)
    (tmp_path / "images" / "fox").symlink_to(tmp_path / "elsewhere" / "more")
    assert load(ImageFolder, tmp_path).train.classes == ("cat", "dog", "fox")
    (tmp_path / "images" / "dog" / "gone.png").symlink_to("/nowhere/gone.png")
    with pytest.raises(DataError, match=r"1 of \d+ images are links that lead nowhere: .*gone\.png"):
        load(ImageFolder, tmp_path)
