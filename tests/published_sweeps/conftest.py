"""One miniature data root and folder of stand-in weights, and thin networks in place of the large published ones."""

import re
from pathlib import Path

import pytest
import timm
from torch import nn
from torchvision import models

import miniatures
from subnetbench.harness.evaluation.cost import time_metrics
from subnetbench.methods.parts.networks import retrieval

THIN = {
    "vit": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "swin": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
    "convnext": {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)},
    "mobilenet": {"width_mult": 0.25},
}
"""Options that make a network of timm or torchvision thin, by the first letters of its name."""


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, the data root, and `models`, the weights that sweep files name."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "data").mkdir()
    for write in miniatures.WRITERS.values():
        write(folder / "data")
    miniatures.write_models(folder / "models")
    return folder


@pytest.fixture
def miniature(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`workplace` as the current folder; networks are a few channels wide, published weights are random ones, and costs timed once."""
    monkeypatch.chdir(workplace)
    miniatures.accept(workplace / "data", monkeypatch)
    monkeypatch.setitem(time_metrics.__kwdefaults__, "warm_up", 0)
    monkeypatch.setitem(time_metrics.__kwdefaults__, "repetitions", 1)
    build, create, resnet = models.get_model, timm.create_model, retrieval.ResNet

    def thin_resnet(block: str, blocks: object, **options: object) -> nn.Module:
        return resnet(block, (1, 1, 1, 1), width=4, **options)

    def get_model(name: str, weights: object = None, **options: object) -> nn.Module:
        depth = re.match(r"res(net|next)(\d+)", name)
        if depth is None:
            return build(name, **options, **_thin(name))
        network = thin_resnet("bottleneck" if int(depth[2]) >= 50 else "basic", ())
        network.avgpool, network.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(1, 1)
        return network

    monkeypatch.setattr(retrieval, "ResNet", thin_resnet)
    monkeypatch.setattr(models, "get_model", get_model)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **o: create(name, **o, **_thin(name)))
    return workplace


def _thin(name: str) -> dict[str, object]:
    return next((options for start, options in THIN.items() if name.startswith(start)), {})
