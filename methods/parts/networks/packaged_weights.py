"""Where the published weights of a network lie on this machine: in an installed package, or in a library's cache."""

from pathlib import Path

import torch

from subnetbench.harness.method import packaged_weights_file


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
