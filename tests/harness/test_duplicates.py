"""Near-duplicates between test and training images: found, counted, listed, in bounded memory."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data import ImageFiles, Split, TaskData, TensorImages, duplicates, near_pairs
from subnetbench.harness.data.duplicates import duplicates_of, most_similar


def noise(n: int, seed: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, side, side)).astype(np.uint8))


def split_of(images: TensorImages | ImageFiles, name: str = "test", **more) -> Split:
    return Split(name=name, images=images, labels=np.arange(len(images)) % 3, **more)


def data_of(train: Split, test: Split) -> TaskData:
    known = {"image_size": 32, "mean": (0.5,), "std": (0.5,), "protocol": "none", "digest": "0"}
    return TaskData(dataset="made up", task="retrieval", train=train, validation=test, test=test, **known)


def copies() -> tuple[torch.Tensor, torch.Tensor]:
    """30 training images and 12 test images, of which 3, 7 and 11 are brighter, noisier copies of 5, 0 and 29."""
    train, test = noise(30, 0), noise(12, 1)
    for at, of in ((3, 5), (7, 0), (11, 29)):
        changed = (
            train[of].float() * 0.8 + 30 + 10 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(at))
        )
        test[at] = changed.clamp(0, 255).to(torch.uint8)
    return train, test


@pytest.mark.parametrize("block", [4, 1024])
def test_copies_are_found_whatever_the_blocks(block, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    monkeypatch.setattr(duplicates, "HELD", 2 * block)
    train, test = copies()
    found = duplicates_of(data_of(split_of(TensorImages(train)), split_of(TensorImages(test))))
    assert (found.above, found.test, found.training, found.blank) == (3, 12, 30, 0)
    assert {(pair.index, pair.training_index) for pair in found.pairs} == {(3, 5), (7, 0), (11, 29)}
    assert [pair.similarity for pair in found.pairs] == sorted((p.similarity for p in found.pairs), reverse=True)
    pairs = near_pairs(TensorImages(torch.cat([train, test])), 0.9)
    assert pairs.tolist() == [[0, 37], [5, 33], [29, 41]]
    assert duplicates_of(data_of(split_of(TensorImages(train)), split_of(TensorImages(test))), limit=1).above == 3


def test_the_similarity_is_the_cosine_of_centred_pixels():
    train, test = copies()
    best, at, _ = most_similar(TensorImages(test), TensorImages(train))
    rows = [images.double().flatten(1).numpy() / 255 for images in (test, train)]
    rows = [row - row.mean(1, keepdims=True) for row in rows]
    first, second = (row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows)
    cosines = first @ second.T
    np.testing.assert_allclose(best, cosines.max(1), atol=1e-5)
    np.testing.assert_array_equal(at, cosines.argmax(1))


def test_a_gallery_counts_and_images_of_one_colour_do_not():
    train, test = copies()
    train[1] = test[0] = 255
    gallery = split_of(TensorImages(train[20:22]), "gallery")
    found = duplicates_of(data_of(split_of(TensorImages(train)), split_of(TensorImages(test), gallery=gallery)))
    assert (found.above, found.test, found.blank) == (5, 14, 1)
    assert [(pair.split, pair.index, pair.similarity) for pair in found.pairs[:2]] == [
        ("gallery", 0, 1),
        ("gallery", 1, 1),
    ]


def test_files_of_any_size_are_compared_and_named(tmp_path):
    big = noise(1, 5, side=40)[0].permute(1, 2, 0).numpy()
    smooth = Image.fromarray(big).resize((8, 8)).resize((80, 80))
    smooth.save(tmp_path / "a.png")
    smooth.resize((64, 64)).save(tmp_path / "b.png")
    files = [ImageFiles([tmp_path / name]) for name in ("a.png", "b.png")]
    (pair,) = duplicates_of(data_of(split_of(files[0]), split_of(files[1]))).pairs
    assert (pair.file, pair.training_file) == (str(tmp_path / "b.png"), str(tmp_path / "a.png"))


@pytest.mark.parametrize(("field", "value"), [("threshold", 1.0), ("threshold", -0.1), ("size", 3), ("limit", -1)])
def test_options_are_checked(field, value):
    with pytest.raises(UserError) as caught:
        api.find_duplicates("emoji", **{field: value})
    assert caught.value.field == field


def test_the_command_counts_those_of_emoji():
    done = CliRunner().invoke(app, ["datasets", "check", "emoji", "--duplicates", "--json", "--limit", "2"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert [(each["task"], each["above"], each["test"], len(each["pairs"])) for each in found] == [
        (task, 54, 800, 2) for task in ("classification", "retrieval", "text_image")
    ]
    shown = CliRunner().invoke(app, ["datasets", "check", "emoji", "--duplicates", "--data", "split=near_duplicates"])
    assert "0 of 705 test images have a near-duplicate among 1125 training images" in shown.output
    wrong = CliRunner().invoke(app, ["datasets", "emoji", "--duplicates"])
    assert wrong.exit_code != 0
    plain = CliRunner().invoke(app, ["datasets", "check", "emoji", "--json"])
    assert [each["test"] for each in json.loads(plain.stdout)] == [800, 800, 800]
