"""Outputs of a network over a collection of images, batch by batch, without gradients."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from subnetbench.harness.data.images import Images
from subnetbench.harness.data.preprocessing import Preprocessing

# Decoding and resizing run beside the network; two batches ahead keep it busy and memory small.
_AHEAD = 2


def require_evaluation_mode(module: nn.Module) -> None:
    """Raise `ValueError` when a part of the module is in training mode."""
    training = [name or type(part).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise ValueError(f"the network must be in evaluation mode, but these are not: {', '.join(training[:3])}")


def outputs(
    module: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Iterator[torch.Tensor]:
    """Float32 outputs (b, ...) of `module` on `device`, in the order of `images`.

    The module must be on `device` and in evaluation mode, so that an output does not depend on the images beside
    it (beyond rounding); otherwise `ValueError` is raised.
    """
    require_evaluation_mode(module)
    batches = [np.arange(i, min(i + batch_size, len(images))) for i in range(0, len(images), batch_size)]
    for batch in _prepared(images, preprocessing, batches, device):
        with torch.inference_mode():
            result = module(batch).float()
        # Inference tensors refuse in-place changes outside inference mode, for which callers need not care.
        yield result.clone()


def embed(
    module: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    keep_on: torch.device | str = "cpu",
) -> torch.Tensor:
    """All outputs of `module` (see `outputs`) as one float32 tensor (n, ...) on the device `keep_on`."""
    if not len(images):
        raise ValueError("there are no images to embed")
    parts = outputs(module, images, preprocessing, batch_size=batch_size, device=device)
    return torch.cat([part.to(keep_on) for part in parts])


def _prepared(
    images: Images, preprocessing: Preprocessing, batches: list[np.ndarray], device: torch.device | str
) -> Iterator[torch.Tensor]:
    if images.tensor is not None:
        for batch in batches:
            yield preprocessing(images, batch, device)
        return
    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting = [pool.submit(preprocessing, images, batch, device) for batch in batches[:_AHEAD]]
        for i in range(len(batches)):
            if i + _AHEAD < len(batches):
                waiting.append(pool.submit(preprocessing, images, batches[i + _AHEAD], device))
            yield waiting.pop(0).result()
