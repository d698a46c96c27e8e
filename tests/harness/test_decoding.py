"""What becomes of an image file: one small file a kind."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from subnetbench.harness.core.errors import DataError
from subnetbench.harness.data.decoding import decode
from subnetbench.harness.data.images import ImageFiles

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "x.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def shown(path: Path, **options: object) -> np.ndarray:
    found = decode(path, **options)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    return found.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif", "x.ppm", "x.webp"])
def test_eight_bit_colour(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(PIXELS), name, **({"lossless": True} if name == "x.webp" else {}))
    np.testing.assert_array_equal(shown(path), PIXELS)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path, name):
    values = np.array([[0, 128, 257], [32896, 65407, 65535]], np.uint16)
    found = shown(saved(tmp_path, Image.fromarray(values), name))
    assert found[..., 0].tolist() == [[0, 0, 1], [128, 255, 255]]
    assert (found == found[..., :1]).all()


def test_whole_numbers_of_32_bits(tmp_path):
    found = shown(saved(tmp_path, Image.fromarray(np.array([[0, 65535]], np.int32)), "x.tif"))
    assert found[0, :, 0].tolist() == [0, 255]
    for wrong in (70000, -1):
        path = saved(tmp_path, Image.fromarray(np.array([[0, wrong]], np.int32)), "y.tif")
        with pytest.raises(DataError, match="no image of 16 bits"):
            decode(path)


def test_floating_point(tmp_path):
    found = shown(saved(tmp_path, Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "x.tif"))
    assert found[0, :, 0].tolist() == [0, 128, 255]
    for wrong in (1.5, -0.1, np.nan, np.inf):
        path = saved(tmp_path, Image.fromarray(np.array([[0, wrong]], np.float32)), "y.tif")
        with pytest.raises(DataError, match="between 0 and 1"):
            decode(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    alpha = np.full((6, 4), 255, np.uint8)
    alpha[:3] = 0
    image = Image.fromarray(np.dstack([PIXELS, alpha]))
    if mode == "P":
        opaque = Image.fromarray(PIXELS).quantize(16)
        opaque.info["transparency"] = opaque.getpixel((0, 0))
        path = saved(tmp_path, opaque, transparency=opaque.getpixel((0, 0)))
        assert shown(path)[0, 0].tolist() == [255, 255, 255]
        return
    found = shown(saved(tmp_path, image.convert(mode)))
    assert (found[:3] == 255).all()
    hidden = Image.fromarray(np.dstack([255 - PIXELS, alpha]))
    hidden.paste(image.crop((0, 3, 4, 6)), (0, 3))
    np.testing.assert_array_equal(found, shown(saved(tmp_path, hidden.convert(mode), "hidden.png")))


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    image = Image.fromarray(np.array([[[0, 0, 0, 51]]], np.uint8))
    assert shown(saved(tmp_path, image)).tolist() == [[[204, 204, 204]]]


def test_black_and_white_grey_and_cmyk(tmp_path):
    assert shown(saved(tmp_path, Image.fromarray(np.array([[True, False]]))))[0, :, 0].tolist() == [255, 0]
    assert shown(saved(tmp_path, Image.fromarray(PIXELS[..., 0]))).shape == (6, 4, 3)
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert shown(saved(tmp_path, white, "x.jpg")).min() > 250


def test_orientation_is_turned_upright_on_request_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    path = saved(tmp_path, Image.fromarray(PIXELS), exif=exif)
    np.testing.assert_array_equal(shown(path), PIXELS)
    upright = shown(path, upright=True)
    np.testing.assert_array_equal(upright, np.rot90(PIXELS, -1))
    images = ImageFiles([path, path], upright=True).subset(np.array([1]))
    np.testing.assert_array_equal(images.read(np.array([0]))[0].permute(1, 2, 0), upright)


def test_boxes(tmp_path):
    path = saved(tmp_path, Image.fromarray(PIXELS))
    np.testing.assert_array_equal(shown(path, box=np.array([1, 2, 3, 5])), PIXELS[2:5, 1:3])
    np.testing.assert_array_equal(shown(path, box=np.array([-2, -1, 6, 7])), PIXELS)
    for outside in ([10, 0, 20, 5], [0, 0, 7, 6], [-3, 0, 4, 6], [3, 0, 3, 6], [4, 0, 5, 6]):
        with pytest.raises(DataError, match="is not inside the image of 4 x 6 pixels"):
            decode(path, np.array(outside))


def test_the_first_picture_of_several(tmp_path):
    pictures = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    for name in ("x.gif", "x.tif"):
        path = tmp_path / name
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
        assert (shown(path) == 10).all()


def test_other_formats_are_refused_whatever_their_suffix(tmp_path):
    postscript = tmp_path / "x.jpg"
    postscript.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    Image.fromarray(PIXELS).save(tmp_path / "icon.jpg", format="ICO")
    for path in (postscript, tmp_path / "icon.jpg", tmp_path, tmp_path / "none.png"):
        with pytest.raises(DataError, match="cannot be decoded"):
            decode(path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        decode(tmp_path / "pipe.png")


def test_images_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(path)
