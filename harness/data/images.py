"""Collections of images, read as uint8: in memory, or decoded from files on demand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from subnetbench.harness.data.decoding import decode


class Images(ABC):
    """An ordered collection of images, read as uint8."""

    channels: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: np.ndarray) -> list[torch.Tensor]:
        """The images at `indices`, each uint8 (channels, height, width); sizes may differ.

        Raises `DataError` for an image that cannot be read.
        """

    @abstractmethod
    def subset(self, indices: np.ndarray) -> "Images":
        """The images at `indices`, in that order, without copying pixels where that is possible."""

    @property
    def tensor(self) -> torch.Tensor | None:
        """All images as one uint8 tensor (n, channels, height, width), or None when they are not in memory."""
        return None


class TensorImages(Images):
    """Images of one size that are in memory: uint8 (n, channels, height, width)."""

    def __init__(self, tensor: torch.Tensor) -> None:
        if tensor.dtype != torch.uint8 or tensor.ndim != 4:
            raise ValueError(f"expected uint8 (n, channels, height, width), got {tensor.dtype} {tuple(tensor.shape)}")
        self._tensor = tensor
        self.channels = tensor.shape[1]

    def __len__(self) -> int:
        return len(self._tensor)

    def read(self, indices: np.ndarray) -> list[torch.Tensor]:
        return list(self._tensor[torch.from_numpy(np.asarray(indices))])

    def subset(self, indices: np.ndarray) -> "TensorImages":
        return TensorImages(self._tensor[torch.from_numpy(np.asarray(indices))])

    @property
    def tensor(self) -> torch.Tensor:
        return self._tensor


class ImageFiles(Images):
    """Image files that are decoded on demand, converted to RGB by the rules of `decoding`.

    `boxes` (n, 4) are left, top, right and bottom in pixels of what is to be seen of each image; None: all of it.
    `upright` turns each as its EXIF orientation says.
    """

    channels = 3

    def __init__(self, paths: Sequence[Path], boxes: np.ndarray | None = None, *, upright: bool = False) -> None:
        self.paths = list(paths)
        self.boxes = boxes
        self.upright = upright

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: np.ndarray) -> list[torch.Tensor]:
        boxes = self.boxes
        return [
            decode(self.paths[i], None if boxes is None else boxes[i], upright=self.upright)
            for i in np.asarray(indices)
        ]

    def subset(self, indices: np.ndarray) -> "ImageFiles":
        chosen = np.asarray(indices)
        boxes = None if self.boxes is None else self.boxes[chosen]
        return ImageFiles([self.paths[i] for i in chosen], boxes, upright=self.upright)
