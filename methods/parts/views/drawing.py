"""Random views of images from explicit parameters: drawn once as data, rendered at any number of sizes.

A view is a random crop, resized, flipped, with jittered colours, and mixed with the same view of another image (Suma
and Tolias 2023). Its draws depend on the seed, the epoch, the image and the number of the view alone, so they are
the same at every size, in every batch, and on any number of processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from subnetbench.harness.method import Images, Preprocessing, sample_uniforms, stream_key
from subnetbench.methods.parts.views.rendering import ViewParameters, render_views

_ATTEMPTS = 10


@dataclass(frozen=True)
class ViewOptions:
    """How views are drawn; the defaults are those of the published `ts_aug` mode.

    `area` and `aspect` bound the crop's share of the image and its width over height; with `square` the crop is a
    square instead, whose side is this share of the image's shorter side. `brightness`, `contrast` and
    `saturation` are the largest relative changes, `hue` the largest turn (of 1). `mixup_alpha` is the parameter of
    the Beta distribution of the own image's weight, 0 for no mixup. Partners are drawn from the whole `split`, or
    from the `batch`, which saves decoding files but makes views depend on the batch.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    square: float | None = None
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    mixup_alpha: float = 0.2
    partners: Literal["split", "batch"] = "split"

    @property
    def jitters(self) -> bool:
        """Whether colours are changed at all."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


CROPS_AND_FLIPS = ViewOptions(brightness=0, contrast=0, saturation=0, hue=0, mixup_alpha=0)


@dataclass(frozen=True)
class ViewDraws:
    """The draws of n views, before any image is seen. Crop boxes follow once image sizes are known.

    `partners` (n,) index the split, `mix` (n,) is the weight of the own image; None without mixup.
    """

    options: ViewOptions
    crop: np.ndarray
    flips: np.ndarray
    orders: np.ndarray
    factors: np.ndarray
    partners: np.ndarray | None
    mix: np.ndarray | None

    def parameters(self, heights: np.ndarray, widths: np.ndarray) -> ViewParameters:
        """The parameters of the n views on images of these sizes (n,) in pixels."""
        boxes = _crop_boxes(self.crop, self.options, heights, widths)
        jitters = self.options.jitters
        return ViewParameters(boxes, self.flips, self.orders if jitters else None, self.factors if jitters else None)


def draw_views(
    options: ViewOptions,
    indices: np.ndarray,
    views: int,
    split_size: int,
    *,
    seed: int,
    counters: tuple[int | str, ...],
) -> ViewDraws:
    """The draws of `views` views of each image at `indices` of a split: n = b * views, image by image.

    Args:
        options: What is drawn from.
        indices: Images int64 (b,).
        views: Views of each image.
        split_size: Images that partners of a mixture are drawn from.
        seed: The run's seed.
        counters: Name the occasion, usually (stage, epoch); with the same ones the same views come out.
    """
    numbers = 2 * _ATTEMPTS + 13
    keys = [stream_key(seed, "augmentation", *counters, view) for view in range(views)]
    uniforms = np.stack([sample_uniforms(key, indices, numbers) for key in keys], axis=1).reshape(-1, numbers)
    crop, flip, order, factor, partner, mix = np.split(uniforms, np.cumsum([2 * _ATTEMPTS + 2, 1, 4, 4, 1]), axis=1)
    spread = np.array([options.brightness, options.contrast, options.saturation, options.hue])
    centre = np.array([1.0, 1.0, 1.0, 0.0])
    partners = weights = None
    if options.mixup_alpha:
        weights = betaincinv(options.mixup_alpha, options.mixup_alpha, mix[:, 0])
        if options.partners == "split":
            partners = (partner[:, 0] * split_size).astype(np.int64)
        else:
            partners = indices[(partner[:, 0] * len(indices)).astype(np.int64)]
    return ViewDraws(
        options=options,
        crop=crop,
        flips=flip[:, 0] < options.flip,
        orders=order.argsort(axis=1),
        factors=np.maximum(centre + spread * (2 * factor - 1), np.array([0.0, 0.0, 0.0, -0.5])),
        partners=partners,
        mix=weights,
    )


def coupled_views(
    images: Images,
    indices: np.ndarray,
    draws: ViewDraws,
    roles: Mapping[str, Preprocessing],
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """The views of the images at `indices`, for each role at its size and with its statistics.

    Args:
        images: The split's images.
        indices: Images int64 (b,), those of `draws`.
        draws: What `draw_views` returned.
        roles: By role, of which only the size, the mean and the standard deviation matter.
        device: Where views are rendered.

    Returns:
        Normalised float32 (b, views, channels, size, size) by role.
    """
    views = len(draws.flips) // len(indices)
    sizes = {role: preprocessing.size for role, preprocessing in roles.items()}
    rendered = _render(images, np.repeat(indices, views), draws, sizes, device)
    if draws.partners is not None and draws.mix is not None:
        weight = torch.from_numpy(draws.mix).to(device, torch.float32).view(-1, 1, 1, 1)
        partners = _render(images, draws.partners, draws, sizes, device)
        rendered = {role: torch.lerp(partners[role], own, weight) for role, own in rendered.items()}
    return {
        role: torch.unflatten(_normalise(pixels, roles[role]), 0, (len(indices), views))
        for role, pixels in rendered.items()
    }


def _render(
    images: Images, indices: np.ndarray, draws: ViewDraws, sizes: Mapping[str, int], device: torch.device | str
) -> dict[str, Tensor]:
    """One view of each image at `indices` (n,), by role: (n, channels, size, size) in [0, 1]."""
    whole = images.tensor
    if whole is not None:
        height, width = whole.shape[-2:]
        pixels = whole.index_select(0, torch.from_numpy(indices).to(whole.device)).to(device)
        parameters = draws.parameters(np.full(len(indices), height), np.full(len(indices), width))
        return {role: render_views(pixels, parameters, size) for role, size in sizes.items()}
    wanted, positions = np.unique(indices, return_inverse=True)
    decoded = [image.to(device) for image in images.read(wanted)]
    heights, widths = (np.array([image.shape[axis] for image in decoded])[positions] for axis in (-2, -1))
    parameters = draws.parameters(heights, widths)
    rows: dict[str, list[Tensor]] = {role: [] for role in sizes}
    for row, position in enumerate(positions):
        for role, size in sizes.items():
            rows[role].append(render_views(decoded[position].unsqueeze(0), parameters[row : row + 1], size))
    return {role: torch.cat(parts) for role, parts in rows.items()}


def _normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    mean, std = (
        torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return (pixels - mean) / std


def _crop_boxes(crop: np.ndarray, options: ViewOptions, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Boxes (top, left, height, width) in whole pixels (n, 4): random area and aspect, at a random position.

    As torchvision's RandomResizedCrop: the first of ten attempts that fits, else the largest central crop of
    an allowed aspect. `crop` holds uniforms in [0, 1): ten areas, ten aspects, top and left.
    """
    areas, aspects, positions = np.split(crop, [_ATTEMPTS, 2 * _ATTEMPTS], axis=1)
    if options.square is not None:
        side = np.maximum(np.rint(options.square * np.minimum(heights, widths)), 1)
        tops, lefts = np.floor(positions.T * (np.stack([heights, widths]) - side + 1))
        return np.stack([tops, lefts, side, side], 1).astype(np.int64)
    low, high = options.area
    target = (low + (high - low) * areas) * (heights * widths)[:, None]
    low, high = np.log(options.aspect)
    aspect = np.exp(low + (high - low) * aspects)
    tried_heights, tried_widths = np.rint(np.sqrt(target / aspect)), np.rint(np.sqrt(target * aspect))
    fits = (tried_heights > 0) & (tried_widths > 0)
    fits &= (tried_heights <= heights[:, None]) & (tried_widths <= widths[:, None])
    rows, first = np.arange(len(crop)), fits.argmax(axis=1)
    box_heights, box_widths = tried_heights[rows, first], tried_widths[rows, first]
    tops = np.floor(positions[:, 0] * (heights - box_heights + 1))
    lefts = np.floor(positions[:, 1] * (widths - box_widths + 1))

    bounded = np.clip(widths / heights, *options.aspect)
    central_heights = np.minimum(heights, np.rint(widths / bounded))
    central_widths = np.minimum(widths, np.rint(heights * bounded))
    central = [(heights - central_heights) // 2, (widths - central_widths) // 2, central_heights, central_widths]
    drawn = [tops, lefts, box_heights, box_widths]
    return np.where(fits.any(axis=1)[:, None], np.stack(drawn, 1), np.stack(central, 1)).astype(np.int64)
