"""MSCOCO and Flickr30k from small trees in exactly the published layouts."""

import json

import numpy as np
import pytest
from PIL import Image

from subnetbench.datasets.coco import Coco
from subnetbench.datasets.flickr30k import Flickr30k
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.execution.run import load_data
from subnetbench.harness.method.resolve import resolve

MALFORMED = "2199200615.jpg| 4   A dog runs across the grass ."


def write_images(folder, names):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        pixels = np.full((20 + number, 24, 3), 8 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_coco(root, *, train=8, val=5):
    annotations = root / "mscoco" / "annotations_trainval2017" / "annotations"
    annotations.mkdir(parents=True)
    for year, count, first in (("train2017", train, 9), ("val2017", val, 139)):
        ids = [first + 7 * i for i in range(count)]
        files = {i: f"{i:012d}.jpg" for i in ids}
        write_images(root / "mscoco" / year, files.values())
        content = {
            "images": [{"id": i, "file_name": files[i]} for i in reversed(ids)],
            "annotations": [
                {"id": 10 * i + j, "image_id": i, "caption": f"caption {j} of {year} {i}"}
                for j in range(5)
                for i in ids
            ],
        }
        (annotations / f"captions_{year}.json").write_text(json.dumps(content))


def write_flickr(root, layout, count=9):
    names = [f"{1000 + 13 * i}.jpg" for i in range(count - 1)] + ["2199200615.jpg"]
    base = root / "flickr30"
    base.mkdir()
    if layout == "kaggle":
        write_images(base / "flickr30k_images", names)
        rows = [f"{name}| {j}| A photo {j} of {name} ." for name in names for j in range(5)]
        rows[-1] = MALFORMED
        (base / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(rows) + "\n")
    else:
        write_images(base / "flickr30k-images", names)
        rows = [f"{name}#{j}\tA photo {j} of {name} ." for name in names for j in range(5)]
        (base / "results_20130124.token").write_text("\n".join(rows) + "\n")
    return names


def test_coco_tests_on_val2017_and_validates_on_a_part_of_train2017(tmp_path):
    write_coco(tmp_path)
    data = Coco(Coco.Config(validation_size=3), tmp_path).load("text_image")
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 3, 5)
    assert data.test.captions[0] == tuple(f"caption {j} of val2017 139" for j in range(5))
    assert data.test.images.paths[1].name == "000000000146.jpg"
    parts = {path.name for path in [*data.train.images.paths, *data.validation.images.paths]}
    assert len(parts) == 8
    again = Coco(Coco.Config(validation_size=3), tmp_path).load("text_image")
    assert again.digest == data.digest


def test_coco_can_be_searched_without_its_training_images(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "mscoco" / "annotations_trainval2017" / "annotations" / "captions_train2017.json").unlink()
    data = Coco(Coco.Config(training=False), tmp_path).load("text_image")
    assert (len(data.train), len(data.validation), len(data.test)) == (0, 0, 5)
    with pytest.raises(DataError, match="cocodataset"):
        Coco(Coco.Config(), tmp_path).load("text_image")


@pytest.mark.parametrize(
    ("method", "config", "lacking"),
    [
        ("token_masking", {}, None),
        ("cascade", {"m": [3]}, None),
        ("two_tower", {"epochs": 0}, None),
        ("cascade", {}, "no validation images, which cascade needs"),
        ("two_tower", {}, "no training images, which two_tower needs"),
        ("fisher_pruning", {}, "no training images, which fisher_pruning needs"),
    ],
)
def test_a_method_runs_without_the_splits_that_it_does_not_need(tmp_path, method, config, lacking):
    write_coco(tmp_path)
    spec = resolve(method, "coco", config=config, data={"training": False})
    if lacking is None:
        assert len(load_data(spec, tmp_path).test) == 5
    else:
        with pytest.raises(DataError, match=lacking):
            load_data(spec, tmp_path)


def test_coco_says_which_images_are_missing(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "mscoco" / "val2017" / "000000000139.jpg").unlink()
    with pytest.raises(DataError, match="1 of 5 images are missing or empty"):
        Coco(Coco.Config(), tmp_path).load("text_image")


def test_coco_leaves_something_to_train_on(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(UserError, match="validation_size"):
        Coco(Coco.Config(validation_size=8), tmp_path).load("text_image")


@pytest.mark.parametrize("layout", ["kaggle", "torchvision"])
def test_flickr_is_read_in_both_layouts(tmp_path, layout):
    names = write_flickr(tmp_path, layout)
    whole = Flickr30k(Flickr30k.Config(training=False), tmp_path).load("text_image")
    assert [path.name for path in whole.test.images.paths] == sorted(names)
    assert all(len(own) == 5 for own in whole.test.captions)
    last = whole.test.captions[sorted(names).index("2199200615.jpg")][4]
    assert last == ("A dog runs across the grass ." if layout == "kaggle" else "A photo 4 of 2199200615.jpg .")
    assert len(whole.train) == 0
    drawn = Flickr30k(Flickr30k.Config(held_out=2), tmp_path).load("text_image")
    assert (len(drawn.train), len(drawn.validation), len(drawn.test)) == (5, 2, 2)
    files = [path.name for split in (drawn.train, drawn.validation, drawn.test) for path in split.images.paths]
    assert sorted(files) == sorted(names)
    assert drawn.protocol != whole.protocol


def test_flickr_that_is_not_there_says_where_it_belongs(tmp_path):
    with pytest.raises(DataError, match=r"results\.csv"):
        Flickr30k(Flickr30k.Config(), tmp_path).load("text_image")


def test_flickr_leaves_something_to_train_on(tmp_path):
    write_flickr(tmp_path, "kaggle")
    with pytest.raises(UserError, match="held_out"):
        Flickr30k(Flickr30k.Config(held_out=5), tmp_path).load("text_image")
