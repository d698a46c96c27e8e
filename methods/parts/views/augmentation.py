"""Random crops and flips of whole batches of uint8 images, keyed by sample."""

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.method import UserError, sample_uniforms, stream_key


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int = 4) -> Tensor:
    """Pad with black, cut a window of the original size, and mirror it left to right where asked.

    `images` (n, channels, height, width), any type; `offsets` int64 (n, 2): row and column of the window's corner
    in the padded image, 0 to 2 `padding`; `flips` bool (n,). Returns the same shape, type and device.
    """
    height, width = images.shape[-2:]
    offsets, flips = offsets.to(images.device), flips.to(images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = offsets[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)
    # Pixels outside the image are black: gather from the unpadded image and blank what lies outside.
    rows, columns = rows - padding, columns - padding
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    picked = images.flatten(2).gather(2, flat.flatten(1)[:, None, :].expand(-1, images.shape[1], -1))
    return picked.view_as(images) * inside[:, None]


def crop_flip_parameters(
    seed: int, stage: str, epoch: int, samples: np.ndarray, padding: int = 4
) -> tuple[Tensor, Tensor]:
    """Random (offsets, flips) for `crop_flip` that belong to (seed, stage, epoch, sample).

    Whatever batch or process a sample falls into, it is cropped alike.

    Raises:
        UserError: For negative padding.
    """
    if padding < 0:
        raise UserError("cannot be negative", field="padding", value=padding, allowed="0, 1, ...")
    uniforms = sample_uniforms(stream_key(seed, "augmentation", stage, epoch), samples, 3)
    offsets = torch.from_numpy((uniforms[:, :2] * (2 * padding + 1)).astype(np.int64))
    return offsets, torch.from_numpy(uniforms[:, 2] < 0.5)
