"""Classifiers by name: each fits the data set's classes, channels and image size."""

from types import SimpleNamespace

import pytest
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.classifiers import classifier


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("conv4", 1, 28),
        ("resnet20", 3, 32),
        ("resnet18", 1, 28),
        ("resnet50", 3, 32),
        ("torchvision/resnet18", 3, 64),
        ("torchvision/mobilenet_v3_small", 3, 32),
        ("vit_tiny_patch16_224", 1, 48),
        ("mobilenetv3_small_050", 3, 32),
    ],
)
def test_networks_are_sized_to_the_data(name, channels, size):
    network = classifier(name, SimpleNamespace(channels=channels, num_classes=7), size=size).eval()
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "did you mean"),
        ("keras/resnet18", "no such library"),
        ("torchvision/resnet18", "3 channels"),
        ("mixer_s32_224", "cannot classify images of 30 pixels"),
    ],
)
def test_networks_that_cannot_be_had_are_refused_with_a_reason(name, message):
    with pytest.raises(UserError, match=message):
        classifier(name, SimpleNamespace(channels=1, num_classes=7), size=30)


@pytest.mark.parametrize(("name", "size"), [("torchvision/googlenet", 64), ("torchvision/inception_v3", 96)])
def test_networks_with_auxiliary_heads_return_one_output_in_training(name, size):
    network = classifier(name, SimpleNamespace(channels=3, num_classes=3), size=size).train()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)
