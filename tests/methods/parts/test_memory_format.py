import copy

import pytest
import torch
from torch import nn

from subnetbench.methods.parts.networks.feature_maps import feature_map_backbone
from subnetbench.methods.parts.networks.memory_format import prefer_channels_last


def separable():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))


def test_the_same_maps_in_another_order():
    network, images = separable().eval(), torch.randn(2, 3, 8, 8)
    expected = network(images)
    maps = copy.deepcopy(prefer_channels_last(network))(images)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps, expected)
    assert images.is_contiguous()


@pytest.mark.parametrize("groups", [1, 2])
def test_networks_without_depthwise_convolutions_are_left_alone(groups):
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups))
    assert prefer_channels_last(network)(torch.randn(2, 4, 8, 8)).is_contiguous()


def test_backbones_with_depthwise_convolutions_use_it():
    maps = feature_map_backbone("mobilenetv2_050", image_size=32).module.eval()(torch.randn(2, 3, 64, 64))
    assert maps.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs choose kernels by this sign")
def test_depthwise_weights_decide_for_maps_of_one_pixel():
    network = prefer_channels_last(separable())
    weight = copy.deepcopy(network)[2].weight
    assert weight.stride() == (9, 1, 3, 1)
    # For everybody else they are as they were: one channel a group leaves nothing to reorder.
    assert weight.is_contiguous()
    assert torch.equal(weight.view(-1), weight.flatten())
    network.load_state_dict({name: value.clone() for name, value in separable().state_dict().items()})
    assert network[2].weight.stride() == (9, 1, 3, 1)
