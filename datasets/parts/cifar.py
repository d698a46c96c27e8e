"""What CIFAR-10 and CIFAR-100 share: their files, read by torchvision after it has checked them."""

from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from subnetbench.harness.data import DataError, Split, TensorImages


def read_cifar(loader: type[CIFAR10], root: Path) -> tuple[Split, Split]:
    """The official training and test splits below `root`.

    The files are pickles; torchvision compares each with its published MD5 before it opens it, so only the
    published ones are ever unpickled.

    Raises:
        DataError: When one is missing or another.
    """
    try:
        return _split("train", loader(str(root), train=True)), _split("test", loader(str(root), train=False))
    except RuntimeError as error:
        raise DataError(_explain(loader, root)) from error


def _split(name: str, data: CIFAR10) -> Split:
    pixels = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return Split(
        name=name,
        images=TensorImages(torch.from_numpy(pixels)),
        labels=np.array(data.targets, np.int64),
        classes=tuple(data.classes),
    )


def _explain(loader: type[CIFAR10], root: Path) -> str:
    folder = root / loader.base_folder
    files = [*loader.train_list, *loader.test_list, [loader.meta["filename"], loader.meta["md5"]]]
    missing = [name for name, _ in files if not (folder / name).is_file()]
    damaged = [name for name, md5 in files if name not in missing and not check_integrity(folder / name, md5)]
    fault = f"the folder {folder} is missing"
    if folder.is_dir():
        faults = [f"missing: {', '.join(missing)}"] * bool(missing)
        faults += [f"not the published files (MD5): {', '.join(damaged)}"] * bool(damaged)
        fault = f"in {folder}, {'; '.join(faults)}"
    return f"{loader.__name__}: {fault}. Get {loader.url} (MD5 {loader.tgz_md5}) and unpack it in {root}"
