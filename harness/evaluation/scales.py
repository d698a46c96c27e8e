"""Embeddings of an image at several sizes, as one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiScale(nn.Module):
    """The mean of a network's unit embeddings of an image at several scales, of unit length again.

    As retrieval of landmarks is evaluated (Radenovic, Tolias, Chum, Fine-tuning CNN Image Retrieval with No Human
    Annotation, arXiv 1711.02512, with plain means): the normalised image is resized bilinearly. Counted costs are those of all
    passes.

    Args:
        module: Images (n, channels, size, size) to embeddings (n, d), of any size of images.
        scales: Factors on the side, above 0.
    """

    def __init__(self, module: nn.Module, scales: Sequence[float]) -> None:
        super().__init__()
        self.module, self.scales = module, tuple(scales)

    def forward(self, images: Tensor) -> Tensor:
        found = [F.normalize(self.module(self._at(images, scale)), dim=1) for scale in self.scales]
        return F.normalize(torch.stack(found).mean(0), dim=1)

    def _at(self, images: Tensor, scale: float) -> Tensor:
        if scale == 1:
            return images
        return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
