"""Sets of grey pictures in the four files of MNIST's format (IDX), compressed or not, compared with their digests."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from subnetbench.harness.data import DataError, Split, TensorImages

LONGEST = 50_000_000  # bytes; more than the longest of them


def find_idx(folder: Path, name: str) -> Path | None:
    """The file called `name` in a folder, or its compressed form; None when neither is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx_splits(folder: Path, digests: Mapping[str, str], classes: Sequence[str]) -> tuple[Split, Split]:
    """The official training and test split in a folder.

    Args:
        folder: Where the files lie.
        digests: SHA-256 of each uncompressed file, which is the same whoever compressed it.
        classes: Names of the classes in order.

    Raises:
        DataError: A file is missing, damaged, or another one than the published.
    """

    def split(name: str, prefix: str) -> Split:
        images, labels = (
            _read(folder, file, digests[file])
            for file in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        )
        return Split(
            name=name,
            images=TensorImages(torch.from_numpy(images[:, None].copy())),
            labels=labels.astype(np.int64),
            classes=tuple(classes),
        )

    return split("train", "train"), split("test", "t10k")


def _read(folder: Path, name: str, digest: str) -> np.ndarray:
    """An array in the IDX format: two zeros, type 8 (byte), number of dimensions, dimensions, data."""
    path = find_idx(folder, name)
    if path is None:
        raise DataError(f"{folder} is incomplete: {name} (or {name}.gz) is missing")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(LONGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): get it again") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{path} is damaged: its content is not the published {name}; get it again")
    dimensions = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(dimensions)
