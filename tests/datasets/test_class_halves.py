"""Retrieval sets whose classes are cut in halves, in small trees of the published layouts, beside other libraries."""

import numpy as np
import pytest
import torch
import torchvision
from pytorch_metric_learning import datasets as library
from scipy.io import savemat

from subnetbench.datasets.aircraft import Aircraft
from subnetbench.datasets.cars196 import Cars196
from subnetbench.datasets.cub import Cub
from subnetbench.datasets.flowers102 import Flowers102
from subnetbench.datasets.sop import Sop
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.data.registry import DATASETS, get_dataset
from subnetbench.harness.evaluation.retrieval import split_metrics

PUBLISHED = [entry.name for entry in DATASETS.listing() if getattr(get_dataset(entry.name), "counts", None)]


def halves(train: int, test: int, train_classes: int, test_classes: int) -> dict[str, int]:
    return {
        "train_images": train,
        "test_images": test,
        "train_classes": train_classes,
        "test_classes": test_classes,
    }


BIRDS = {1: "Black_footed_Albatross", 2: "Laysan_Albatross", 99: "Ovenbird", 100: "Brown_Pelican", 101: "White_Pelican"}


@pytest.fixture
def cub(tmp_path, write_images, counted):
    base = tmp_path / "CUB_200_2011"
    names = [f"{i:03d}.{bird}/{bird}_{k:04d}_{i}.jpg" for i, bird in BIRDS.items() for k in range(i % 3 + 2)]
    write_images(base / "images", *names)
    (base / "images.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(names, start=1)))
    labels = (f"{n} {int(name[:3])}\n" for n, name in enumerate(names, start=1))
    (base / "image_class_labels.txt").write_text("".join(labels))
    (base / "train_test_split.txt").write_text("".join(f"{n} {n % 2}\n" for n in range(1, len(names) + 1)))
    counted(Cub, **halves(12, 4, 4, 1))
    return base


def test_cub(cub, tmp_path, load, listed, of_library):
    data = load(Cub, validation_classes=1)
    assert data.train.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross", "099.Ovenbird")
    assert data.validation.classes == ("100.Brown_Pelican",)
    assert data.test.classes == ("101.White_Pelican",)
    assert data.train.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 2
    assert set(data.validation.labels) == set(data.test.labels) == {0}
    train, test = (library.CUB(str(tmp_path), split=split) for split in ("train", "test"))
    assert of_library(train) == [(path, int(name[:3])) for path, name in listed(data.train, data.validation)]
    assert of_library(test) == [(path, int(name[:3])) for path, name in listed(data.test)]
    (cub / "image_class_labels.txt").unlink()
    assert load(Cub, validation_classes=1).digest == data.digest


def test_validation_may_stay_in_training(cub, load):
    held_out, kept = load(Cub, validation_classes=1), load(Cub, validation_classes=0)
    assert len(kept.train) == len(held_out.train) + len(held_out.validation) == 12
    assert kept.validation.classes == held_out.validation.classes
    assert "not held out" in kept.protocol
    assert kept.digest != held_out.digest
    with pytest.raises(UserError, match=r"data\.validation_classes"):
        load(Cub, validation_classes=4)


def test_files_that_are_missing(cub, load):
    images = sorted((cub / "images").rglob("*.jpg"))
    images[0].unlink()
    images[5].write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 16 images are missing or empty.*Albatross.*datasets fetch cub"):
        load(Cub)
    whole = load(Cub, partial=True)
    assert len(whole.train) + len(whole.validation) == 10
    (cub / "images.txt").unlink()
    with pytest.raises(DataError, match=r"images\.txt is missing"):
        load(Cub, partial=True)


def test_other_numbers_than_the_published_ones(cub, load, counted):
    counted(Cub, train_images=5864, test_images=4)
    with pytest.raises(DataError, match="12 train images instead of 5864") as caught:
        load(Cub)
    assert "test images" not in str(caught.value)
    assert len(load(Cub, partial=True).test) == 4


@pytest.mark.parametrize(
    "line", ["17 ../../secret.jpg", "17 /etc/secret.jpg", "17", "17 000.Nobody/a.jpg", "17 201.Nobody/a.jpg"]
)
def test_annotations_that_are_wrong(cub, load, line):
    with (cub / "images.txt").open("a") as file:
        file.write(line + "\n")
    with (cub / "image_class_labels.txt").open("a") as file:
        file.write(f"17 {line[3:6] if line[3:6].isdigit() else 1}\n")
    with pytest.raises(DataError):
        load(Cub, partial=True)


def test_a_folder_that_is_not_there(load):
    with pytest.raises(DataError, match=r"CUB_200_2011.*datasets fetch cub.*data\.path"):
        load(Cub)
    with pytest.raises(DataError, match=r"lifted_struct"):
        load(Sop)


CARS = [f"Make Model {number}" for number in range(1, 197)]
CAR_ROWS = [("000001.jpg", 1), ("000002.jpg", 98), ("000003.jpg", 99), ("000004.jpg", 196), ("000005.jpg", 1)]
CAR_ROWS += [("000006.jpg", 98), ("000007.jpg", 99)]


def structure(**fields):
    """A MATLAB structure array, as scipy writes it."""
    rows = list(zip(*fields.values(), strict=True))
    return np.array(rows, [(name, object) for name in fields])


def cells(names):
    return np.array(names, object)


@pytest.fixture
def expected_cars(counted):
    counted(Cars196, **halves(4, 3, 2, 2))
    return [(number <= 98, number) for _, number in CAR_ROWS]


def numbers_of(data, listed):
    return sorted(int(name[:3]) for _, name in listed(data.train, data.validation)), sorted(
        int(name[:3]) for _, name in listed(data.test)
    )


def test_cars_with_the_joint_annotation(tmp_path, write_images, load, listed, expected_cars):
    base = tmp_path / "cars196"
    write_images(base / "car_ims", *(name for name, _ in CAR_ROWS))
    annotations = structure(
        relative_im_path=[f"car_ims/{name}" for name, _ in CAR_ROWS],
        bbox_x1=[1.0] * len(CAR_ROWS),
        **{"class": [np.uint8(number) for _, number in CAR_ROWS]},
        test=[n % 2 for n in range(len(CAR_ROWS))],
    )
    savemat(base / "cars_annos.mat", {"annotations": annotations[None], "class_names": cells(CARS)[None]})
    data = load(Cars196)
    assert listed(data.train, data.validation) == [
        (f"cars196/car_ims/{name}", f"{number:03d} {CARS[number - 1]}")
        for wanted in (1, 98)
        for name, number in CAR_ROWS
        if number == wanted
    ]
    assert numbers_of(data, listed) == ([1, 1, 98, 98], [99, 99, 196])


def test_cars_with_the_development_kit_as_torchvision_reads_it(tmp_path, write_images, load, listed, expected_cars):
    base = tmp_path / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    for folder, file, rows in (
        ("cars_train", "devkit/cars_train_annos.mat", CAR_ROWS[:4]),
        ("cars_test", "cars_test_annos_withlabels.mat", CAR_ROWS[4:]),
    ):
        write_images(base / folder, *(name for name, _ in rows))
        annotations = structure(**{"class": [n for _, n in rows]}, fname=[name for name, _ in rows])
        savemat(base / file, {"annotations": annotations[None]})
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": cells(CARS)[None]})
    data = load(Cars196)
    theirs = [
        (path[len(str(tmp_path)) + 1 :], label + 1)
        for split in ("train", "test")
        for path, label in torchvision.datasets.StanfordCars(tmp_path, split=split)._samples
    ]
    ours = listed(data.train, data.validation, data.test)
    assert sorted((path, int(name[:3])) for path, name in ours) == sorted(theirs)
    assert numbers_of(data, listed) == ([1, 1, 98, 98], [99, 99, 196])


def test_cars_as_kaggle_packs_them(tmp_path, write_images, load, listed, expected_cars):
    base = tmp_path / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    for part, file, rows in (
        ("cars_train", "cars_train_annos.mat", CAR_ROWS[:4]),
        ("cars_test", "cars_test_annos_withlabels.mat", CAR_ROWS[4:]),
    ):
        write_images(base / part / part, *(name for name, _ in rows))
        annotations = structure(**{"class": [n for _, n in rows]}, fname=[name for name, _ in rows])
        savemat(base / "devkit" / file, {"annotations": annotations[None]})
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": cells(CARS)[None]})
    data = load(Cars196)
    assert numbers_of(data, listed) == ([1, 1, 98, 98], [99, 99, 196])
    (base / "devkit" / "cars_test_annos_withlabels.mat").rename(base / "cars_test_annos_withlabels.mat")
    assert load(Cars196).digest == data.digest


def test_cars_in_class_folders_as_pytorch_metric_learning_reads_them(
    tmp_path, write_images, load, listed, expected_cars, of_library
):
    base = tmp_path / "cars196"
    names = [*CARS]
    names[97] = "Ram C/V Cargo Van"
    for part, rows in (("train", CAR_ROWS[:4]), ("test", CAR_ROWS[4:])):
        folders = [f"{names[number - 1].replace('/', '-')}/{name}" for name, number in rows]
        write_images(base / "car_data" / "car_data" / part, *folders)
        (base / f"anno_{part}.csv").write_text("".join(f"{name},1,2,3,4,{number}\n" for name, number in rows))
    (base / "names.csv").write_text("\n".join(names) + "\n")
    data = load(Cars196)
    theirs = [library.Cars196(str(base), split=split) for split in ("train", "test")]
    for split, other in zip((("train", "validation"), ("test",)), theirs, strict=True):
        ours = [(path, int(name[:3])) for path, name in listed(*(data.split(name) for name in split))]
        assert sorted(ours) == sorted(of_library(other))
    assert "098 Ram C/V Cargo Van" in data.validation.classes


def test_cars_without_or_with_damaged_annotations(tmp_path, load):
    (tmp_path / "cars196").mkdir()
    with pytest.raises(DataError, match=r"none of cars_annos\.mat, devkit, names\.csv"):
        load(Cars196)
    file = tmp_path / "cars196" / "cars_annos.mat"
    for content in (b"MATLAB 5.0 MAT-file" + bytes(range(200)) * 3, b"", b"\x89HDF\r\n\x1a\n" + bytes(600)):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"cars_annos\.mat is damaged"):
            load(Cars196)
    savemat(file, {"annotations": np.zeros(3), "class_names": cells(CARS)})
    with pytest.raises(DataError, match="has no field"):
        load(Cars196)


def test_aircraft(tmp_path, write_images, load, listed, counted):
    data_folder = tmp_path / "fgvc-aircraft-2013b" / "data"
    variants = [f"Type {number:02d}" for number in range(100)]
    rows = {"trainval": [("0034309", 7), ("1025794", 49)], "test": [("1340192", 7), ("0056978", 50), ("0698580", 99)]}
    write_images(data_folder / "images", *(f"{image}.jpg" for part in rows.values() for image, _ in part))
    (data_folder / "variants.txt").write_text("\n".join(variants) + "\n")
    for part, lines in rows.items():
        text = "".join(f"{image} {variants[number]}\n" for image, number in lines)
        (data_folder / f"images_variant_{part}.txt").write_text(text)
    counted(Aircraft, **halves(3, 2, 2, 2))
    data = load(Aircraft)
    theirs = [torchvision.datasets.FGVCAircraft(tmp_path, split=split) for split in ("trainval", "test")]
    expected = [
        (path[len(str(tmp_path)) + 1 :], variants[label])
        for each in theirs
        for path, label in zip(each._image_files, each._labels, strict=True)
    ]
    assert sorted(listed(data.train, data.validation, data.test)) == sorted(expected)
    assert (data.train.classes, data.validation.classes) == (("Type 07",), ("Type 49",))
    assert data.test.classes == ("Type 50", "Type 99")
    (data_folder / "variants.txt").write_text("\n".join(variants[:99]) + "\n")
    with pytest.raises(DataError, match="Type 99"):
        load(Aircraft)


def test_flowers(tmp_path, write_images, load, listed, counted, monkeypatch):
    base = tmp_path / "flowers-102"
    labels = np.array([77, 77, 51, 52, 102, 1, 1, 51], np.uint8)
    write_images(base / "jpg", *(f"image_{number:05d}.jpg" for number in range(1, 9)))
    savemat(base / "imagelabels.mat", {"labels": labels[None]})
    ids = {"trnid": [1, 4], "valid": [2, 6], "tstid": [3, 5, 7, 8]}
    savemat(base / "setid.mat", {name: np.array([numbers], np.uint16) for name, numbers in ids.items()})
    counted(Flowers102, **halves(4, 4, 2, 3))
    data = load(Flowers102)
    # Their checksums are those of the published files.
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda self: True)
    theirs = [torchvision.datasets.Flowers102(tmp_path, split=split) for split in ("train", "val", "test")]
    expected = [
        (path.relative_to(tmp_path).as_posix(), each.classes[label])
        for each in theirs
        for path, label in zip(each._image_files, each._labels, strict=True)
    ]
    assert sorted(listed(data.train, data.validation, data.test)) == sorted(expected)
    assert data.train.classes == ("pink primrose",)
    assert len(data.test) == (labels > 51).sum()
    savemat(base / "imagelabels.mat", {"labels": np.array([[0, 1]])})
    with pytest.raises(DataError, match="from 1 to 102"):
        load(Flowers102)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_add_up(name):
    counts = get_dataset(name).counts
    totals = {
        "cub": 11788,
        "cars196": 16185,
        "sop": 120053,
        "inshop": 52712,
        "aircraft": 10000,
        "flowers102": 8189,
    }
    if name in totals:
        images = [count for what, count in counts.items() if "classes" not in what]
        assert sum(images) == totals[name]
    known = {"train classes", "train images", "test classes", "test images", "queries", "gallery images"}
    assert set(counts) <= known


def test_reported_figures_leave_out_what_does_not_fit(cub, load):
    test = load(Cub).test
    x = torch.eye(4)
    metrics = split_metrics(x, x, test)
    assert "recall_at_2" in metrics
    assert "recall_at_4" not in metrics  # a query has three others to find
    assert metrics["map_at_r"] == 1.0
