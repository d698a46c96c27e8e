"""Whole channels are removed: what is left is smaller, computes less, and is loaded as any network is."""

import copy

import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.evaluation.macs import mac_metrics
from subnetbench.methods.parts.networks import dependency_pruning
from subnetbench.methods.parts.networks.dependency_pruning import remove_channels
from subnetbench.methods.parts.networks.resizable import ResizableNetwork
from subnetbench.methods.parts.networks.small import CifarResNet, small_network

IMAGE = torch.zeros(1, 3, 8, 8)
SHORT = {"epochs": 1, "batch_size": 16, "limit_steps": 2, "network": "conv2", "image_size": 8, "finetune_epochs": 1}


def pruned(network, **options):
    pytest.importorskip("torch_pruning")
    settings = {"scope": "layer", "importance": "group_norm", "generator": torch.Generator().manual_seed(0), **options}
    remove_channels(network, IMAGE, settings.pop("share", 0.5), **settings)
    return network


def test_channels_of_least_norm_go_and_the_rest_computes_what_it_did():
    torch.manual_seed(0)
    network = small_network("conv2", size=8).eval()
    with torch.no_grad():
        # Every second channel of both convolutions is dead, biases included: the function must not change.
        for layer in (network.conv1, network.conv2):
            layer.weight[::2] = 0
            layer.bias[::2] = 0
        for layer in (network.fc1, network.fc2):
            layer.weight[::2] = 0
            layer.bias[::2] = 0
    images = torch.randn(4, 3, 8, 8)
    expected, before = network(images), mac_metrics(network, IMAGE)["macs_executed"]
    torch.testing.assert_close(pruned(network)(images), expected)
    assert (network.conv2.weight.shape, network.fc3.weight.shape) == ((32, 32, 3, 3), (10, 128))
    # By hand: conv1, conv2, fc1, fc2, fc3 at half the channels on either side.
    now = 64 * 32 * 27 + 64 * 32 * 32 * 9 + 512 * 128 + 128 * 128 + 128 * 10
    assert mac_metrics(network, IMAGE)["macs_executed"] == now < before / 3


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("importance", ["group_norm", "random"])
def test_shortcuts_keep_fitting(scope, importance):
    torch.manual_seed(0)
    network = CifarResNet(blocks=1, width=8).eval()
    before = mac_metrics(network, IMAGE)["macs_executed"]
    small = pruned(network, scope=scope, importance=importance)
    assert small(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert mac_metrics(small, IMAGE)["macs_executed"] < before
    assert not any(p.grad is not None for p in small.parameters())


def test_a_network_of_full_size_takes_the_shapes_of_what_is_loaded():
    torch.manual_seed(0)
    whole = CifarResNet(blocks=1, width=8)
    wrapper = ResizableNetwork(copy.deepcopy(whole)).eval()
    small = pruned(whole).eval()
    wrapper.load_state_dict(ResizableNetwork(small).state_dict())
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(wrapper(images), small(images))
    assert repr(wrapper.network) == repr(small)


def test_layers_that_cannot_be_resized_are_refused():
    with pytest.raises(UserError, match="LayerNorm"):
        ResizableNetwork(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(UserError, match=r"subnetbench\[pruning\]"):
        dependency_pruning.remove_channels(
            small_network("conv2", size=8),
            IMAGE,
            0.5,
            scope="layer",
            importance="random",
            generator=torch.Generator(),
        )
