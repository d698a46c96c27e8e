"""What evaluation does to an image before a network sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from subnetbench.harness.data.images import Images


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation does to an image: resize, centre crop, scale to [0, 1], normalise. Nothing random.

    `size` is the side of the square that the network sees. The image is first resized so that its shorter side is
    `size * resize_ratio` pixels, and each side is then rounded; an image that already has that shape is left alone.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float = 1.0
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"

    def __call__(self, images: Images, indices: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
        """Normalised float32 images (n, channels, size, size) on `device`."""
        return normalise(self.resized(images, indices, device), self.mean, self.std)

    def resized(self, images: Images, indices: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
        """The same before normalisation: uint8 images (n, channels, size, size) on `device`."""
        whole = images.tensor
        if whole is None:
            return torch.stack([self._fit(image) for image in images.read(indices)]).to(device)
        rows = torch.from_numpy(np.asarray(indices)).to(whole.device)
        return self._fit(whole[rows].to(device))

    def resized_to(self, size: int) -> "Preprocessing":
        """The same for squares of another size."""
        return replace(self, size=size)

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, before the crop."""
        scale = self.size * self.resize_ratio / min(height, width)
        return round(height * scale), round(width * scale)

    def _fit(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        target = self.resized_shape(height, width)
        if target != (height, width):
            if self.interpolation == "lanczos":
                images = _resize_lanczos(images, *target)
            else:
                images = F.resize(images, list(target), InterpolationMode(self.interpolation), antialias=True)
        if images.shape[-2:] != (self.size, self.size):
            images = F.center_crop(images, [self.size, self.size])
        return images


def _resize_lanczos(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pillow's filter, plane by plane on the CPU; torchvision has none for tensors."""
    planes = images.cpu().numpy().reshape(-1, *images.shape[-2:])
    resized = [Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS) for plane in planes]
    stacked = torch.from_numpy(np.stack([np.asarray(plane) for plane in resized]))
    return stacked.view(*images.shape[:-2], height, width).to(images.device)


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (or float in [0, 255]) images to float32 `(pixel / 255 - mean) / std`, channel by channel."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).view(-1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(-1, 1, 1)
    return images.to(torch.float32) * scale + shift
