"""MSCOCO and Flickr30k in Karpathy's splits, from small trees in the published layouts."""

import json
from pathlib import Path

import pytest

from subnetbench.datasets.coco import Coco
from subnetbench.datasets.coco_karpathy import CocoKarpathy
from subnetbench.datasets.flickr30k_karpathy import Flickr30kKarpathy
from subnetbench.harness.core.errors import DataError

SPLITS = ["train", "restval", "val", "test", "test", "train"]


def entries(coco: bool) -> list[dict]:
    """One image of each split; those of COCO's val2014 make `restval`, `val` and `test`."""
    found = []
    for number, split in enumerate(SPLITS, start=1):
        folder = "train2014" if split == "train" else "val2014"
        file = f"COCO_{folder}_{number:012d}.jpg" if coco else f"{1000 + number}.jpg"
        entry = {"filename": file, "split": split, "sentids": [number]}
        entry["sentences"] = [{"raw": f"caption {j} of {number}.", "tokens": []} for j in range(5)]
        found.append({**entry, "filepath": folder, "cocoid": number} if coco else entry)
    return found


def write_list(path: Path, images: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": "x"}))


def load(dataset, root):
    return dataset(dataset.Config(), root).load("text_image")


@pytest.mark.parametrize("year", [2014, 2017])
@pytest.mark.parametrize("folder", ["mscoco", "coco"])
def test_coco_is_found_under_the_names_of_both_years(tmp_path, write_images, year, folder):
    base = tmp_path / folder
    for image in entries(coco=True):
        # 2017 moved all but 5000 images of val2014 to training
        moved = "val2017" if image["split"] == "test" else "train2017"
        place = (image["filepath"], image["filename"]) if year == 2014 else (moved, f"{image['cocoid']:012d}.jpg")
        write_images(base / place[0], place[1])
    write_list(base / "dataset_coco.json", entries(coco=True))
    data = load(CocoKarpathy, tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [3, 1, 2]
    assert [path.name[-8:] for path in data.train.images.paths] == ["0001.jpg", "0002.jpg", "0006.jpg"]
    assert data.test.captions[0] == tuple(f"caption {j} of 4." for j in range(5))
    assert "Karpathy" in data.protocol


def test_flickr(tmp_path, write_images):
    images = entries(coco=False)
    write_images(tmp_path / "flickr30" / "flickr30k-images", *(image["filename"] for image in images))
    write_list(tmp_path / "flickr30" / "dataset_flickr30k.json", images)
    data = load(Flickr30kKarpathy, tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [3, 1, 2]
    (tmp_path / "flickr30" / "flickr30k-images" / "1004.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing.*caption_datasets"):
        load(Flickr30kKarpathy, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"filename": "../../secret.jpg"},
        {"filename": "/etc/secret.jpg"},
        {"filename": ""},
        {"filepath": ".."},
        {"split": "holdout"},
        {"sentences": [{"raw": 3}]},
        {"sentences": [{}]},
        {"cocoid": "x"},
    ],
)
def test_lists_that_are_wrong(tmp_path, damage):
    images = entries(coco=True)
    images[2] |= damage
    write_list(tmp_path / "mscoco" / "dataset_coco.json", images)
    with pytest.raises(DataError, match="dataset_coco"):
        load(CocoKarpathy, tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"dataset_coco\.json is missing.*caption_datasets\.zip"):
        load(CocoKarpathy, tmp_path)


@pytest.mark.parametrize("annotations", ["annotations", "annotations_trainval2017/annotations"])
def test_coco_is_read_as_its_archives_unpack(tmp_path, write_images, annotations):
    for year, count in (("train2017", 4), ("val2017", 2)):
        files = {i: f"{i:012d}.jpg" for i in range(1, count + 1)}
        write_images(tmp_path / "mscoco" / year, *files.values())
        content = {
            "images": [{"id": i, "file_name": file} for i, file in files.items()],
            "annotations": [{"id": i, "image_id": i, "caption": f"of {i}"} for i in files],
        }
        path = tmp_path / "mscoco" / annotations / f"captions_{year}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    data = Coco(Coco.Config(validation_size=1), tmp_path).load("text_image")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [3, 1, 2]
