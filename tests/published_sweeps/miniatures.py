"""Miniatures of the data sets and weights of the published sweeps: the official layouts, with a few small images.

Each function of `WRITERS` writes one data set below a data root. Counts and digests of the published files are what a
miniature cannot have: `accept` takes their checks away.
"""

import hashlib
import json
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10

from subnetbench.datasets import mnist as mnist_set
from subnetbench.harness.data.registry import DATASETS, get_dataset

CLASSES, TEST_CLASSES, OF_CLASS = 5, 3, 5
"""Training and test classes of a retrieval set, and images of each."""


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Photographs of 24 by 20 pixels that all differ, in the format that the names end in."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)).save(path)


def _numbers(first_of_test: int) -> list[int]:
    """Numbers of classes, one an image: the first ones train, those from `first_of_test` test."""
    classes = [*range(1, CLASSES + 1), *range(first_of_test, first_of_test + TEST_CLASSES)]
    return [number for number in classes for _ in range(OF_CLASS)]


def cifar10(root: Path) -> None:
    folder = root / CIFAR10.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in [file for file, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]:
        batch = {"data": random.integers(0, 256, (20, 3072), np.uint8), "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {CIFAR10.meta["key"]: [f"class {number}" for number in range(10)]}
    (folder / CIFAR10.meta["filename"]).write_bytes(pickle.dumps(names, protocol=2))


def mnist(root: Path) -> None:
    folder, random = root / "MNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 20)):
        arrays = {
            "images-idx3": random.integers(0, 256, (count, 28, 28), np.uint8),
            "labels-idx1": np.arange(count, dtype=np.uint8) % 10,
        }
        for name, array in arrays.items():
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())


def cub(root: Path) -> None:
    base, numbers = root / "CUB_200_2011", _numbers(101)
    files = [f"{number:03d}.Bird_{number}/Bird_{i:04d}.jpg" for i, number in enumerate(numbers)]
    write_images(base / "images", files)
    (base / "images.txt").write_text("".join(f"{i} {file}\n" for i, file in enumerate(files, start=1)))
    labels = "".join(f"{i} {number}\n" for i, number in enumerate(numbers, start=1))
    (base / "image_class_labels.txt").write_text(labels)


def cars196(root: Path) -> None:
    base, numbers = root / "cars196", _numbers(99)
    files = [f"car_ims/{i:06d}.jpg" for i in range(1, len(numbers) + 1)]
    write_images(base, files)
    rows = np.array(list(zip(files, numbers, strict=True)), [("relative_im_path", object), ("class", object)])
    names = np.array([f"Make Model {number}" for number in range(1, 197)], object)
    savemat(base / "cars_annos.mat", {"annotations": rows, "class_names": names})


def aircraft(root: Path) -> None:
    data, numbers = root / "fgvc-aircraft-2013b" / "data", _numbers(51)
    names = [f"{i:07d}" for i in range(len(numbers))]
    write_images(data / "images", (f"{name}.jpg" for name in names))
    (data / "variants.txt").write_text("".join(f"Variant {number}\n" for number in range(1, 101)))
    lines = [f"{name} Variant {number}\n" for name, number in zip(names, numbers, strict=True)]
    for part, rows in (("trainval", lines[::2]), ("test", lines[1::2])):
        (data / f"images_variant_{part}.txt").write_text("".join(rows))


def flowers102(root: Path) -> None:
    base, numbers = root / "flowers-102", _numbers(52)
    write_images(base / "jpg", (f"image_{i:05d}.jpg" for i in range(1, len(numbers) + 1)))
    savemat(base / "imagelabels.mat", {"labels": np.array([numbers], np.uint8)})


def sop(root: Path) -> None:
    base, numbers = root / "Stanford_Online_Products", _numbers(11319)
    rows = [(i, number, 1, f"lamp_final/{number}_{i}.JPG") for i, number in enumerate(numbers, start=1)]
    write_images(base, (file for *_, file in rows))
    for part, chosen in (("train", rows[: CLASSES * OF_CLASS]), ("test", rows[CLASSES * OF_CLASS :])):
        lines = "".join(" ".join(map(str, row)) + "\n" for row in chosen)
        (base / f"Ebay_{part}.txt").write_text("image_id class_id super_class_id path\n" + lines)


def inshop(root: Path) -> None:
    base, rows = root / "inshop", []
    for i, number in enumerate(_numbers(101)):
        part = "train" if number <= CLASSES else ("query", "gallery")[i % 2]
        rows.append((f"img/WOMEN/Dresses/id_{number:08d}/{i:02d}_1_front.jpg", f"id_{number:08d}", part))
    write_images(base / "Img", (file for file, _, _ in rows))
    (base / "Eval").mkdir()
    lines = "".join(f"{file:<70} {item} {part}\n" for file, item, part in rows)
    (base / "Eval" / "list_eval_partition.txt").write_text(
        f"{len(rows)}\nimage_name item_id evaluation_status\n{lines}"
    )


def veri776(root: Path) -> None:
    base, parts = root / "VeRi", {"train": range(1, 1 + CLASSES), "test": range(101, 101 + TEST_CLASSES)}
    for part, vehicles in parts.items():
        seen = [(f"{v:04d}", f"c{c:03d}") for v in vehicles for c in range(1, OF_CLASS + 1)]
        files = [f"{vehicle}_{camera}_{i:08d}_0.jpg" for i, (vehicle, camera) in enumerate(seen)]
        write_images(base / f"image_{part}", files)
        items = "".join(
            f'<Item imageName="{file}" vehicleID="{vehicle}" cameraID="{camera}"/>'
            for file, (vehicle, camera) in zip(files, seen, strict=True)
        )
        (base / f"{part}_label.xml").write_text(f"<TrainingImages><Items>{items}</Items></TrainingImages>")
        if part == "test":
            write_images(base / "image_query", files[::2])


def landmarks(root: Path) -> None:
    """The training list of 30 % of the classes, as the PrunNet code has it, the official test, and both revisited sets."""
    base = root / "google-landmark"

    def files_of(part: str, names: Sequence[str]) -> list[str]:
        files = [f"{part}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg" for name in names]
        write_images(base, files)
        return files

    train = files_of("train", [f"{i:016x}"[::-1] for i in range(CLASSES * OF_CLASS)])
    lines = "".join(f"{file} {i // OF_CLASS}\n" for i, file in enumerate(train))
    (base / "train_30_percent.txt").write_text(lines)
    for name in ("roxford5k", "rparis6k"):
        revisited(root, name)


def revisited(root: Path, name: str) -> None:
    gallery, queries = [f"place_{i:06d}" for i in range(12)], ["place_q1", "place_q2", "place_q3"]
    write_images(root / name / "jpg", (f"{image}.jpg" for image in [*gallery, *queries]))
    box = [1.0, 2.0, 17.0, 18.0]
    lists = [([0, 3], [5, 7], [1]), ([2], [4], [6]), ([9], [10], [])]
    entries = [{"easy": easy, "hard": hard, "junk": junk, "bbx": box} for easy, hard, junk in lists]
    truth = {"imlist": gallery, "qimlist": queries, "gnd": entries}
    (root / name / f"gnd_{name}.pkl").write_bytes(pickle.dumps(truth, protocol=2))


def coco(root: Path) -> None:
    """2017's images with five captions each; the published cascades hand on 50 images, so val2017 has more."""
    base = root / "mscoco"
    annotations = base / "annotations"
    annotations.mkdir(parents=True)
    for year, count in (("train2017", 76), ("val2017", 60)):
        files = {i: f"{i:012d}.jpg" for i in range(1, count + 1)}
        write_images(base / year, files.values())
        captions = [
            {"id": 10 * i + j, "image_id": i, "caption": f"caption {j} of {i}"} for i in files for j in range(5)
        ]
        content = {"images": [{"id": i, "file_name": file} for i, file in files.items()], "annotations": captions}
        (annotations / f"captions_{year}.json").write_text(json.dumps(content))


def flickr30k(root: Path) -> None:
    base, names = root / "flickr30", [f"{1000 + 7 * i}.jpg" for i in range(60)]
    write_images(base / "flickr30k_images", names)
    rows = "".join(f"{name}| {j}| A photo {j} of {name} .\n" for name in names for j in range(5))
    (base / "results.csv").write_text("image_name| comment_number| comment\n" + rows)


WRITERS: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (cifar10, mnist, cub, cars196, aircraft, flowers102, sop, inshop, veri776, landmarks, coco, flickr30k)
}


def write_clip(folder: Path, *, layers: int = 12) -> None:
    """A CLIP checkpoint in the layout of transformers: 16 patches, as many layers and heads as ViT-B has, 4 wide each."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = [*map(chr, range(33, 127)), *(f"{chr(i)}</w>" for i in range(33, 127))]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    special = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {"hidden_size": 48, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 96}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text, **special, "vocab_size": len(words)},
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)


def write_models(folder: Path) -> None:
    """All CLIP checkpoints that published sweeps name, below `folder`."""
    for name in ("clip-vit-base-patch16", "clip-vit-base-patch32", "clip-vit-large-patch14"):
        write_clip(folder / name)


def accept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let data sets take a miniature for the published files: no counts, and the digests that the miniature has."""
    for entry in DATASETS.listing():
        if hasattr(dataset := get_dataset(entry.name), "counts"):
            monkeypatch.setattr(dataset, "counts", {})
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).is_file())
    for name in mnist_set.FILES:
        digest = hashlib.sha256((root / "MNIST" / "raw" / name).read_bytes()).hexdigest()
        monkeypatch.setitem(mnist_set.FILES, name, digest)
