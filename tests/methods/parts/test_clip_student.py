"""Students of a CLIP image encoder: heads, what training touches, and distillation from cached features."""

import pytest
import torch
from torch import nn

from published.clip_student import distil_head
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.text_image.clip_student import (
    ClipStudent,
    clip_student,
    cosine_distillation_loss,
    projection_head,
)

IMAGES = torch.randn(22, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(22, 7, generator=torch.Generator().manual_seed(1))


def student(mode: str = "frozen") -> ClipStudent:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3))
    return ClipStudent(backbone, projection_head(5, 7, layers=2, hidden=9), mode)


def distil(network: ClipStudent, features: object, **changes: object) -> torch.Tensor:
    return distil_head(network.head, features, TARGETS, **{"epochs": 4, "batch_size": 8, "lr": 1e-2, **changes})


def test_cached_features_give_the_same_head_as_the_whole_loop():
    cached, uncached = student().train(), student().train()
    with torch.no_grad():
        features = cached.features(IMAGES)

    def order(epoch: int) -> torch.Tensor:
        return torch.randperm(22, generator=torch.Generator().manual_seed(epoch))

    losses = distil(cached, features.__getitem__, order=order)
    repeated = distil(uncached, lambda rows: uncached.features(IMAGES[rows]), order=order)
    assert len(losses) == 4 * 3
    torch.testing.assert_close(losses, repeated, atol=1e-5, rtol=0)
    for name, value in cached.head.state_dict().items():
        torch.testing.assert_close(uncached.head.state_dict()[name], value, atol=1e-5, rtol=0)
    assert losses[-3:].mean() < losses[:3].mean()


@pytest.mark.parametrize(
    ("mode", "statistics_drift", "gradients"),
    [("frozen", False, False), ("published", True, False), ("trained", True, True)],
)
def test_what_training_does_to_the_backbone(mode, statistics_drift, gradients):
    network = student(mode).train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    cosine_distillation_loss(TARGETS, network(IMAGES)).backward()
    after = network.backbone.state_dict()
    assert torch.equal(after["1.running_mean"], before["1.running_mean"]) != statistics_drift
    assert all((parameter.grad is not None) == gradients for parameter in network.backbone.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())


def test_the_loss_does_not_see_lengths():
    loss = cosine_distillation_loss(TARGETS, 5 * TARGETS)
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_distillation_loss(TARGETS, -TARGETS), torch.tensor(2.0))


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_heads_have_as_many_layers_as_asked_for(layers):
    head = projection_head(5, 7, layers=layers, hidden=9)
    linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == layers
    assert sum(isinstance(module, nn.ReLU) for module in head.modules()) == layers - 1
    assert head(torch.randn(3, 5)).shape == (3, 7)


def test_a_head_has_layers():
    with pytest.raises(UserError, match="layers"):
        projection_head(5, 7, layers=0)


@pytest.mark.parametrize("architecture", ["resnet18", "timm/mobilenetv3_small_050"])
def test_students_of_any_backbone(architecture):
    network = clip_student(architecture, embedding=16, layers=2, image_size=64)
    assert not network.training
    with torch.no_grad():
        assert network(torch.randn(2, 3, 64, 64)).shape == (2, 16)
