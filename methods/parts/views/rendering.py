"""Rendering of views on tensors, many at once, each with its own crop, flip and colours."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.method import uncounted


@dataclass(frozen=True)
class ViewParameters:
    """What to do to n images. `boxes` (n, 4) are top, left, height and width in pixels of the source.

    `orders` (n, 4) is the order in which brightness (0), contrast, saturation and hue (3) are changed, `factors` (n, 4) their strengths: 1 changes
    nothing, but for the hue, which turns by a share of the circle in [-0.5, 0.5]. None: colours stay.
    """

    boxes: np.ndarray
    flips: np.ndarray
    orders: np.ndarray | None = None
    factors: np.ndarray | None = None

    def __getitem__(self, rows: slice) -> "ViewParameters":
        return ViewParameters(
            self.boxes[rows],
            self.flips[rows],
            None if self.orders is None else self.orders[rows],
            None if self.factors is None else self.factors[rows],
        )


def render_views(pixels: Tensor, parameters: ViewParameters, size: int) -> Tensor:
    """uint8 images (n, channels, height, width) to views (n, channels, size, size) in [0, 1], on the same device."""
    views = crop_and_resize(pixels, parameters.boxes, parameters.flips, size)
    if parameters.orders is not None and parameters.factors is not None:
        views = jitter_colours(views, parameters.orders, parameters.factors)
    return views


def crop_and_resize(pixels: Tensor, boxes: np.ndarray, flips: np.ndarray, size: int) -> Tensor:
    """Crop each image to its own box, resize to a square, flip where `flips` is set, scale to [0, 1].

    Bilinear with antialiasing, as torchvision's `resized_crop` on float images. Both axes are matrix products, so
    images with different boxes go through together.
    """
    top, left, tall, wide = torch.from_numpy(boxes).to(pixels.device, torch.float32).unbind(1)
    flipped = torch.from_numpy(flips).to(pixels.device)
    height, width = pixels.shape[-2:]
    rows = _resampling(top, tall, height, size)
    columns = _resampling(left, wide, width, size, flipped)
    with uncounted():
        narrow = torch.unflatten(pixels.to(torch.float32).flatten(1, 2) @ columns.mT, 1, pixels.shape[1:3])
        return torch.stack([rows @ channel for channel in narrow.unbind(1)], dim=1).div_(255)


def _resampling(start: Tensor, length: Tensor, source: int, size: int, reverse: Tensor | None = None) -> Tensor:
    """Weights (n, size, source) of a triangle filter that takes `length` pixels from `start` on to `size` pixels,
    last to first where `reverse` is set. All arguments but the sizes are (n,)."""
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    scale = length / size
    positions = torch.arange(size, device=start.device).view(1, -1, 1) + 0.5
    if reverse is not None:
        positions = torch.where(reverse.view(-1, 1, 1), size - positions, positions)
    pixels = torch.arange(source, device=start.device).view(1, 1, -1) + 0.5
    weights = (pixels - (start + positions * scale)).abs_().div_(-scale.clamp(min=1)).add_(1).clamp_(min=0)
    weights.mul_((pixels > start) & (pixels < start + length))
    return weights.div_(weights.sum(dim=2, keepdim=True))


def jitter_colours(views: Tensor, orders: np.ndarray, factors: np.ndarray) -> Tensor:
    """Change the colours of (n, channels, h, w) images in [0, 1], each in its own order by its own factors.

    The four changes are those of torchvision on float images. Grey images keep their saturation and hue.
    """
    strengths = torch.from_numpy(factors).to(views.device, torch.float32)
    where = np.arange(len(views))
    for turn in range(4):
        # Sorted by what is due to them, images of the same change are neighbours and need no scattering.
        due = orders[where, turn]
        sorting = np.argsort(due, kind="stable")
        where, bounds = where[sorting], np.searchsorted(due[sorting], range(5))
        views = views.index_select(0, torch.from_numpy(sorting).to(views.device))
        factor = strengths[torch.from_numpy(where).to(views.device)]
        for jitter, change in enumerate(_CHANGES if views.shape[1] == 3 else _CHANGES[:2]):
            part = slice(bounds[jitter], bounds[jitter + 1])
            change(views[part], factor[part, jitter].view(-1, 1, 1, 1))
    return views.index_select(0, torch.from_numpy(where.argsort()).to(views.device))


def _brighten_(views: Tensor, factor: Tensor) -> None:
    views.mul_(factor).clamp_(0, 1)


def _contrast_(views: Tensor, factor: Tensor) -> None:
    mean = _grey(views).mean(dim=(1, 2, 3), keepdim=True)
    views.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def _saturate_(views: Tensor, factor: Tensor) -> None:
    grey = _grey(views)
    views.mul_(factor).add_(grey * (1 - factor)).clamp_(0, 1)


def _turn_hue_(views: Tensor, share: Tensor) -> None:
    """Turn the hue by a share of the circle, in the HSV model."""
    red, green, blue = views.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    darkest = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - darkest
    # Which channel is the brightest, as factors of 0 and 1: several times faster than `where`.
    is_red = (red == value).to(views.dtype)
    is_green = (green == value).to(views.dtype) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    sixth = ((green - blue) * is_red).addcmul_(blue - red, is_green).addcmul_(red - green, is_blue)
    sixth.div_(chroma.clamp(min=1e-12)).add_(6 * share.squeeze(1))
    sixth.add_(is_green, alpha=2).add_(is_blue, alpha=4).remainder_(6)
    # On the colour circle of six sixths red is at 0, green at 2 and blue at 4; each fades out over two sixths.
    views[:, 0] = torch.addcmul(darkest, chroma, (sixth - 3).abs_().sub_(1).clamp_(0, 1))
    for channel, centre in ((1, 2), (2, 4)):
        strength = (sixth - centre).abs_().neg_().add_(2).clamp_(0, 1)
        views[:, channel] = torch.addcmul(darkest, chroma, strength)


_CHANGES = (_brighten_, _contrast_, _saturate_, _turn_hue_)


def _grey(views: Tensor) -> Tensor:
    """Luma (n, 1, h, w); grey images are their own."""
    if views.shape[1] != 3:
        return views
    red, green, blue = views.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)
