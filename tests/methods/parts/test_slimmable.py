import copy

import pytest
import timm
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.capacity.scores import prunable_parameters
from subnetbench.methods.parts.capacity.slimmable import (
    SlimmableNetwork,
    mobilenet_v2_channels,
    nearest_multiple,
    truncated,
)
from subnetbench.methods.parts.capacity.slimmable_layers import SlimmableLayer, WidthSwitch
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding, ResNet, switchnet_resnet

WIDTHS = (0.3, 0.8944, 1.0)

SMALL = {
    "resnet18": {"channels": [16, 32, 48, 64], "layers": [1, 1, 1, 1], "zero_init_last": False},
    "seresnet18": {"channels": [16, 32, 48, 64], "layers": [1, 1, 1, 1], "zero_init_last": False},
    "resnext50_32x4d": {
        "channels": [16, 32, 48, 64],
        "layers": [1, 1, 1, 1],
        "cardinality": 8,
        "base_width": 16,
        "zero_init_last": False,
    },
    "mobilenetv2_035": {},
    "efficientnet_lite0": {},
    "convnext_atto": {"dims": [12, 24, 40, 48], "depths": [1, 1, 1, 1]},
    "vit_tiny_patch16_224": {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": 64, "init_values": 0.1},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 24,
        "num_heads": (2, 2, 4, 4),
        "depths": (1, 1, 1, 1),
        "img_size": 64,
        "window_size": 2,
    },
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **SMALL[name]).eval()


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
def test_any_network_runs_at_any_width(name):
    network = small(name)
    with torch.no_grad():
        expected = network(IMAGES)
        names = list(prunable_parameters(network))
        slim = SlimmableNetwork(network, WIDTHS, IMAGES).eval()
        assert torch.equal(slim(IMAGES), expected)
        assert torch.equal(slim(IMAGES, width=2), expected)
        sizes = []
        for i in range(len(WIDTHS)):
            output = slim(IMAGES, width=i)
            plain = slim.plain(i)
            assert torch.equal(plain(IMAGES), output)
            assert not any(isinstance(module, SlimmableLayer) for module in plain.modules())
            assert not any(type(module).__name__.startswith("Slimmable") for module in plain.modules())
            sizes.append(sum(p.numel() for p in plain.parameters()))
        assert sizes[0] < sizes[1] < sizes[2] == sum(p.numel() for p in small(name).parameters())
    assert list(prunable_parameters(slim.network)) == names


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "vit_tiny_patch16_224"])
def test_gradients_reach_the_active_part_alone(name):
    slim = SlimmableNetwork(small(name), (0.5, 1.0), IMAGES).eval()
    slim(IMAGES, width=0).square().sum().backward()
    for path, module in slim.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.grad is not None:
            rows = module.weight.grad.flatten(1).abs().sum(dim=1) > 0
            parts = rows.unflatten(0, (module.parts, -1))
            half = parts.shape[1] // 2
            assert parts[:, :half].any(dim=1).all(), path
            assert not parts[:, half:].any(), path


def test_a_copy_has_a_switch_of_its_own():
    slim = SlimmableNetwork(small("vit_tiny_patch16_224"), (0.5, 1.0), IMAGES).eval()
    other = copy.deepcopy(slim)
    with torch.no_grad(), other.at(0):
        assert other.network(IMAGES).shape == (2, 24)
        assert slim.network(IMAGES).shape == (2, 48)


def test_the_width_is_set_back_after_an_error():
    slim = SlimmableNetwork(small("resnet18"), (0.5, 1.0), IMAGES)
    with pytest.raises(RuntimeError):
        slim(torch.zeros(1, 5, 8, 8), width=0)
    assert slim.switch.index == 1
    assert slim.network.conv1.weight.shape[0] == 64


def test_widths_have_batch_norms_of_their_own():
    slim = SlimmableNetwork(small("resnet18"), (0.5, 1.0), IMAGES).train()
    before = {name: value.clone() for name, value in slim.state_dict().items() if "running_mean" in name}
    slim(IMAGES, width=0)
    for name, value in slim.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(value, before[name]) == (".bn.1." in name), name


def test_full_outputs_and_unchanged_layers():
    backbone = ResNet("basic", (1, 1, 1, 1), width=4)
    network = ClassifiedEmbedding(backbone, backbone.channels, 7, dim=10)
    slim = SlimmableNetwork(
        network, (0.5, 1.0), IMAGES, full_outputs=("projector.linear", "projector.norm"), unchanged=("classifier",)
    )
    embeddings, logits = slim(IMAGES, width=0)
    assert (embeddings.shape, logits.shape) == ((2, 10), (2, 7))
    assert type(slim.network.classifier) is nn.Linear
    assert [len(bn.weight) for bn in slim.network.projector.norm.bn] == [10, 10]


@pytest.mark.parametrize(
    ("width", "weights"),
    [(1.0, 11_166_912), (0.8944, 8_885_586), (0.7746, 6_679_416), (0.6325, 4_433_860), (0.4472, 2_215_383)],
)
def test_convolution_weights_of_the_published_widths(width, weights):
    with torch.device("meta"):
        plain = SlimmableNetwork(switchnet_resnet(18), (width, 1.0), torch.zeros(1, 3, 64, 64)).plain(0)
    assert sum(p.numel() for p in prunable_parameters(plain).values()) == weights


def test_rounding_rules():
    assert [truncated(count, 0.8944) for count in (64, 128, 256, 512)] == [57, 114, 228, 457]
    assert truncated(2, 0.1) == 1
    assert [nearest_multiple(count, 0.5) for count in (32, 24, 12, 8)] == [16, 16, 8, 8]
    assert nearest_multiple(24, 0.75) == 24
    assert [mobilenet_v2_channels(count, 0.7) for count in (1280, 320)] == [896, 224]


@pytest.mark.parametrize(
    "layer", [nn.MultiheadAttention(4, 2), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 4, 2), nn.Conv1d(4, 4, 1)]
)
def test_layers_that_cannot_be_narrowed_are_refused(layer):
    with pytest.raises(UserError, match=type(layer).__name__):
        SlimmableNetwork(nn.Sequential(nn.Conv2d(3, 4, 1), layer), (0.5, 1.0), IMAGES)


def test_modules_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="no such module"):
        SlimmableNetwork(nn.Sequential(nn.Conv2d(3, 4, 1)), (0.5, 1.0), IMAGES, unchanged=("classifier",))


@pytest.mark.parametrize("widths", [(), (0.0, 1.0), (0.5, 1.5)])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(UserError, match="widths"):
        WidthSwitch(widths)
