"""Token masking: a ViT that embeds and attends to only part of its patches, at inference, without any training.

Li et al., FLIP (arXiv 2212.00794) drop tokens to train faster; here the trained encoder is simply given fewer. The
published cascade code draws a new mask for every batch and lays the wrong positions over the kept patches. Here an
encoder has one mask, drawn from its own seed, so an embedding never depends on the batch; the published positions
are kept behind `published_positions`.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError, numpy_generator, unknown
from subnetbench.methods.parts.vit.model import PlainViT

Pattern = Literal["random", "grid", "centre"]
PATTERNS: tuple[Pattern, ...] = ("random", "grid", "centre")


def kept_count(patches: int, masked_share: float) -> int:
    """floor((1 - masked_share) * patches) in floating point: 25 patches at 0.8 keep 4, not 5, as published."""
    if not 0 <= masked_share <= 1:
        raise UserError("is no share", field="masked_share", value=masked_share, allowed="0 to 1")
    return int((1 - masked_share) * patches)


def kept_patches(patches: int, masked_share: float, pattern: Pattern = "random", seed: int = 0) -> np.ndarray:
    """The patches to keep, int64 in raster order, of a square grid of `patches`.

    `random` draws them from `seed`; `grid` spreads them evenly by ordered dithering (a checkerboard at 0.5, every
    second row and column at 0.75); `centre` keeps those nearest to the centre of the image.
    """
    count, side = kept_count(patches, masked_share), round(patches**0.5)
    if side * side != patches:
        raise UserError("is not the number of cells of a square grid", field="patches", value=patches)
    if pattern == "random":
        order = numpy_generator(seed, "masks", "tokens").permutation(patches)
    elif pattern == "grid":
        order = np.argsort(_dither(side).ravel())
    elif pattern == "centre":
        offset = np.arange(side) - (side - 1) / 2
        order = np.argsort((offset[:, None] ** 2 + offset[None, :] ** 2).ravel(), kind="stable")
    else:
        raise unknown("token pattern", pattern, PATTERNS)
    return np.sort(order[:count])


def _dither(side: int) -> np.ndarray:
    """The upper left (side, side) of Bayer's matrix, all values different; low values are spread evenly."""
    matrix = np.zeros((1, 1), dtype=np.int64)
    while len(matrix) < side:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return matrix[:side, :side]


class TokenMaskedViT(nn.Module):
    """`vit` on the patches `kept` (int64, raster order): images (n, channels, size, size) to embeddings.

    With all patches kept it is the dense encoder; with none it sees only the class token. `published_positions`
    repeats a fault of the published code: the position ids (kept patches..., number of patches) are laid over
    (class token, kept patches...), so every token but the last gets the position of another one.
    """

    kept: Tensor
    positions: Tensor

    def __init__(self, vit: PlainViT, kept: np.ndarray, *, published_positions: bool = False) -> None:
        super().__init__()
        patches = vit.shape.patches
        if len(kept) and not (kept[0] >= 0 and kept[-1] < patches and (np.diff(kept) > 0).all()):
            raise UserError("must be ascending patch numbers", field="kept", allowed=f"0 to {patches - 1}")
        self.vit = vit
        kept_first = [*kept, patches] if published_positions else [0, *(kept + 1)]
        self.register_buffer("kept", torch.as_tensor(kept, dtype=torch.int64))
        self.register_buffer("positions", torch.as_tensor(kept_first, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.vit(images, self.kept, self.positions)
        return result
