"""Cars196: 16185 photographs of 196 models of cars; retrieval of unseen models.

Three layouts are read, whichever is found in the folder `cars196` or `stanford_cars` (or `data.path`): the joint
annotation `cars_annos.mat` with `car_ims`; the development kit, as torchvision reads it (`devkit`, `cars_train`,
`cars_test`, `cars_test_annos_withlabels.mat`, also as Kaggle packs it: `cars_train/cars_train`); and folders of classes with `names.csv`, `anno_train.csv` and
`anno_test.csv`, as pytorch-metric-learning reads them.
"""

from pathlib import Path

import numpy as np

from subnetbench.datasets.parts.annotations import mat_fields, mat_variables, text_lines
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below
from subnetbench.harness.data import DataError, protocols_of, register_dataset

CLASSES = 196
Listing = tuple[list[Path], list[int], list[str]]


@register_dataset("cars196")
class Cars196(RetrievalDataset):
    """The first 98 models train, the last 98 test; the official halves of the images are put together."""

    licence = "none stated; non-commercial research"
    citation = "Krause, Stark, Deng, Fei-Fei. 3D object representations for fine-grained categorization. 3dRR 2013."
    source = "the authors' page is gone; copies hold cars_annos.mat with car_ims, or the development kit"
    folder = "cars196"
    counts = {"train classes": 98, "train images": 8054, "test classes": 98, "test images": 8131}
    (protocol,) = protocols_of("cars196", "retrieval")

    class Config(RetrievalConfig):
        pass

    @property
    def base(self) -> Path:
        usual = super().base
        devkit = usual.with_name("stanford_cars")
        return devkit if self.config.path is None and not usual.exists() and devkit.exists() else usual

    def splits(self, base: Path) -> Parts:
        layouts = {"cars_annos.mat": _joint, "devkit": _development_kit, "names.csv": _class_folders}
        present = [layout for name, layout in layouts.items() if (base / name).exists()]
        if not present:
            raise DataError(f"{base} holds none of {', '.join(layouts)}")
        paths, numbers, names = present[0](base)
        if not all(1 <= number <= len(names) == CLASSES for number in numbers):
            raise DataError(f"classes are not numbers from 1 to {CLASSES}, each with a name")
        # Two models may be spelled alike; their numbers are not.
        classes = [f"{number:03d} {name}" for number, name in enumerate(names, start=1)]
        whole = self.image_split("whole", paths, [classes[number - 1] for number in numbers], classes)
        return self.halves(whole, CLASSES // 2)


def _joint(base: Path) -> Listing:
    file = base / "cars_annos.mat"
    paths, numbers = mat_fields(file, "annotations", ("relative_im_path", "class"))
    (names,) = mat_variables(file, "class_names")
    return [below(base, str(path)) for path in paths], _integers(numbers), list(map(str, names))


def _development_kit(base: Path) -> Listing:
    (names,) = mat_variables(base / "devkit" / "cars_meta.mat", "class_names")
    paths: list[Path] = []
    numbers: list[int] = []
    labelled = base / "cars_test_annos_withlabels.mat"
    beside = base / "devkit" / labelled.name
    for file, folder in (
        (base / "devkit" / "cars_train_annos.mat", base / "cars_train"),
        (beside if beside.exists() and not labelled.exists() else labelled, base / "cars_test"),
    ):
        if (folder / folder.name).is_dir():  # as Kaggle's archive unpacks
            folder = folder / folder.name
        files, of_files = mat_fields(file, "annotations", ("fname", "class"))
        paths += [below(folder, str(name)) for name in files]
        numbers += _integers(of_files)
    return paths, numbers, list(map(str, names))


def _class_folders(base: Path) -> Listing:
    names = [line.strip() for line in text_lines(base / "names.csv")]
    paths: list[Path] = []
    numbers: list[int] = []
    for part in ("train", "test"):
        for line in text_lines(base / f"anno_{part}.csv"):
            file, *_, number = line.strip().split(",")
            if not number.isdecimal() or not 1 <= int(number) <= len(names):
                raise DataError(f"anno_{part}.csv has a line without a class: {line[:80]!r}")
            folder = names[int(number) - 1].replace("/", "-")
            paths.append(below(base, f"car_data/car_data/{part}/{folder}/{file}"))
            numbers.append(int(number))
    return paths, numbers, names


def _integers(values: np.ndarray) -> list[int]:
    try:
        return [int(value) for value in values]
    except (TypeError, ValueError):
        raise DataError("a class is not a number") from None
