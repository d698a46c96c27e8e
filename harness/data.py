"""The vocabulary of data: images, splits, and what a data set declares.

Data sets hand out uint8 images and integer labels; they never augment, normalise or shuffle. What a network sees
is made by `Preprocessing` (evaluation) and by the augmentations in `subnetbench.methods.parts` (training only).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from subnetbench.harness.config import DatasetConfig
from subnetbench.harness.errors import DataError, UserError
from subnetbench.harness.tasks import Task


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
    """Image files that are decoded on demand, converted to RGB.

    `boxes` (n, 4) are left, top, right and bottom in pixels of what is to be seen of each image; None: all of it.
    """

    channels = 3

    def __init__(self, paths: Sequence[Path], boxes: np.ndarray | None = None) -> None:
        self.paths = list(paths)
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: np.ndarray) -> list[torch.Tensor]:
        boxes = self.boxes
        return [_decode(self.paths[i], None if boxes is None else boxes[i]) for i in np.asarray(indices)]

    def subset(self, indices: np.ndarray) -> "ImageFiles":
        chosen = np.asarray(indices)
        return ImageFiles([self.paths[i] for i in chosen], None if self.boxes is None else self.boxes[chosen])


def _decode(path: Path, box: np.ndarray | None = None) -> torch.Tensor:
    try:
        with Image.open(path) as image:
            seen = image if box is None else image.crop(tuple(box.tolist()))
            pixels = np.array(seen.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be decoded: {error}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class GroundTruth:
    """What is right for each query where labels do not say it: gallery indices, one array a query.

    Of `ignored` items neither good nor bad is said: they are taken out of the query's ranking.
    """

    positives: tuple[np.ndarray, ...]
    ignored: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.positives)

    def subset(self, queries: np.ndarray) -> "GroundTruth":
        chosen = np.asarray(queries)
        return GroundTruth(tuple(self.positives[i] for i in chosen), tuple(self.ignored[i] for i in chosen))


@dataclass(frozen=True, kw_only=True)
class Split:
    """Part of a data set: images with what is known of each.

    `labels` are int64 (n,). In the training split they are 0..K-1; in a class-disjoint validation or test split
    they count that split's own classes. `captions[i]` are the texts of image i; `gallery` is a separate split
    that queries search in (None: the split is its own gallery, and an image never retrieves itself).

    `ground_truth` replaces labels in the evaluation of such a split, once for each setting by its prefix: a figure of
    the setting `hard_` is called `hard_map`; the main setting has the prefix "". `metrics` are what the field reports
    on this split, as far as k fits; none named: the task's own.
    """

    name: str
    images: Images
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] | None = None
    gallery: "Split | None" = None
    ground_truth: Mapping[str, GroundTruth] | None = None
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.images):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if self.captions is not None and len(self.captions) != len(self.images):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.captions)} sets of captions")
        for setting in (self.ground_truth or {}).values():
            if self.gallery is None or len(setting) != len(self.images):
                raise ValueError(f"{self.name}: ground truth is of all queries, and in a gallery of their own")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1

    def subset(self, indices: np.ndarray, name: str | None = None) -> "Split":
        """The samples at `indices`, in that order, with the labels unchanged."""
        captions = None if self.captions is None else tuple(self.captions[i] for i in indices)
        truth = self.ground_truth
        return Split(
            name=name or self.name,
            images=self.images.subset(indices),
            labels=self.labels[indices],
            classes=self.classes,
            captions=captions,
            gallery=self.gallery,
            ground_truth=None if truth is None else {name: each.subset(indices) for name, each in truth.items()},
            metrics=self.metrics,
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A data set made ready for one task: three splits, their statistics, and a digest of all of it.

    `image_size` is the native side in pixels (None when images differ); `mean` and `std` are per channel, for
    pixels in [0, 1]. `protocol` names how the splits were made (`concept-disjoint`, `official test`, ...). Two
    results may be compared only when their digests are equal.
    """

    dataset: str
    task: Task
    train: Split
    validation: Split
    test: Split
    image_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    protocol: str
    digest: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.train.images.channels

    @property
    def num_classes(self) -> int:
        """Number of training classes."""
        return self.train.num_classes

    def split(self, name: str) -> Split:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise UserError("no such split", field="split", value=name, allowed=", ".join(splits))
        return splits[name]


def on_device(data: TaskData, device: torch.device, share: float = 0.25) -> TaskData:
    """The same data with its images on a GPU, where they take at most this share of its free memory."""
    tensors = [split.images.tensor for split in (data.train, data.validation, data.test)]
    size = sum(tensor.numel() for tensor in tensors if tensor is not None)
    if device.type != "cuda" or size > share * torch.cuda.mem_get_info(device)[0]:
        return data

    def moved(split: Split) -> Split:
        tensor = split.images.tensor
        return split if tensor is None else replace(split, images=TensorImages(tensor.to(device)))

    return replace(data, train=moved(data.train), validation=moved(data.validation), test=moved(data.test))


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


class Dataset(ABC):
    """Named data with tasks, splits, a digest, a licence and a citation.

    A data set is one file in `datasets/` with one subclass, registered by `register_dataset`. It reads from
    `root` (see `--data-root`) and never writes there except through `fetch`.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    licence: ClassVar[str]
    citation: ClassVar[str]
    source: ClassVar[str]

    class Config(DatasetConfig):
        pass

    def __init__(self, config: DatasetConfig, root: Path) -> None:
        self.config = config
        self.root = root

    @abstractmethod
    def load(self, task: Task) -> TaskData:
        """The data for `task`. Raises `DataError` saying what is missing, where to get it, where to put it."""

    def fetch(self) -> Path:
        """Get or build what `config` asks for under `root` and return where it lies.

        Most data sets cannot do it themselves: raises `UserError` with their source.
        """
        raise UserError(f"{self.name} cannot be fetched by the program; it comes from {self.source}")

    def problems(self) -> list[str]:
        """What is wrong with the files under `root`, one line each; empty when `load` will work."""
        try:
            for task in self.tasks:
                self.load(task)
        except DataError as error:
            return [str(error)]
        return []


def digest_of(*parts: Any) -> str:
    """A short content digest (16 hex digits of SHA-256) of arrays, tensors, strings and plain numbers."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().contiguous().numpy()
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype.str}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        else:
            sha.update(repr(part).encode())
        sha.update(b"\x1e")
    return sha.hexdigest()[:16]
