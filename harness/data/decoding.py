"""One decoder for all image files: what becomes of bit depth, transparency, orientation and colour.

| in the file | what a network sees |
|---|---|
| formats | JPEG, PNG, WebP, TIFF, BMP, GIF and PPM (the first picture of several); all others are refused |
| 8 bits grey, palette, CMYK, YCbCr, Lab | converted to RGB |
| 1 bit | black and white |
| 16 bits grey | scaled to 8 bits: value / 257, rounded |
| 16 bits RGB PNG | the upper 8 bits |
| 32 bits whole numbers | refused, unless none is negative or above 65535: then as 16 bits |
| floating point | values in [0, 1] times 255, rounded; others are refused |
| transparency | composed on white |
| EXIF orientation | ignored, as the field's loaders do for published data; turned upright for one's own images |
| a box that leaves the image | cut where it leaves by up to 2 pixels, which is rounding; else refused |
"""

import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from subnetbench.harness.core.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Names of the formats as Pillow calls them; a JPEG may hold further pictures, as some cameras write."""
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")
"""Suffixes, in lower case, of files that are taken for images."""

_ROUNDED = 2
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def decode(path: Path, box: np.ndarray | None = None, *, upright: bool = False) -> torch.Tensor:
    """The first picture in a file as uint8 RGB, (3, height, width).

    Args:
        path: A regular file in one of `FORMATS`.
        box: (4,) left, top, right and bottom, in pixels of the image as it is stored; None: all of it.
        upright: Turn the picture as its EXIF orientation says.

    Raises:
        DataError: The file is missing, no image, damaged, or one of those that the table above refuses.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} cannot be decoded: it is not a regular file")
        with warnings.catch_warnings():
            # Pillow only warns of an image between one and two times its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                orientation = image.getexif() if upright else None
                seen = image if box is None else image.crop(_checked(box, image.size, path))
                pixels = _rgb(seen, path)
                if orientation is not None:
                    pixels.getexif().update({0x0112: orientation.get(0x0112, 1)})
                    pixels = ImageOps.exif_transpose(pixels)
                array = np.array(pixels)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} cannot be decoded: {error}") from None
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _checked(box: np.ndarray, size: tuple[int, int], path: Path) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(int, box.tolist())
    # Published boxes are rounded, and may so leave their image by a pixel.
    left, top = max(left, min(0, left + _ROUNDED)), max(top, min(0, top + _ROUNDED))
    right, bottom = (min(edge, max(length, edge - _ROUNDED)) for edge, length in ((right, size[0]), (bottom, size[1])))
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise DataError(
            f"{path}: the box {left}, {top}, {right}, {bottom} is not inside the image of {size[0]} x {size[1]} pixels"
        )
    return left, top, right, bottom


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in _SIXTEEN_BITS or image.mode == "I":
        return _grey(_eight_bits(np.array(image).astype(np.int64), path))
    if image.mode == "F":
        return _grey(_from_unit(np.array(image), path))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(f"{path}: values from {values.min()} to {values.max()} are no image of 16 bits: scale it first")
    return np.asarray((values + 128) // 257)


def _from_unit(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all() or (values.size and (values.min() < 0 or values.max() > 1)):
        raise DataError(f"{path}: floating-point values must be between 0 and 1: scale the image first")
    return np.asarray(np.rint(values * 255))
