import pytest
import torch
from torch import nn

from published.sparsity import parameter_count
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.small import SMALL_NETWORKS, CifarResNet, small_network


@pytest.mark.parametrize("name", SMALL_NETWORKS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 28, 7), (3, 64, 200), (2, 9, 3)])
def test_networks_are_sized_to_the_data(name, channels, size, classes):
    network = small_network(name, channels=channels, size=size, classes=classes)
    logits = network(torch.randn(2, channels, size, size))
    assert logits.shape == (2, classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("conv2", 4_300_992 + 650), ("conv4", 2_425_024 + 906), ("conv6", 2_261_184 + 1_418), ("resnet20", 272_282)],
)
def test_published_parameter_counts(name, count):
    assert parameter_count(small_network(name)) == count


def test_only_input_layer_and_classifier_depend_on_channels_and_classes():
    plain, other = small_network("resnet20"), small_network("resnet20", channels=1, classes=100)
    assert parameter_count(other) - parameter_count(plain) == 90 * 65 - 2 * 9 * 16


def test_residual_network_starts_xavier_normal_and_has_bare_shortcuts():
    torch.manual_seed(0)
    network = CifarResNet()
    shortcuts = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    assert [(layer.stride, layer.out_channels) for layer in shortcuts] == [((2, 2), 32), ((2, 2), 64)]
    assert not any(isinstance(layer, nn.Conv2d) and layer.bias is not None for layer in network.modules())
    weight = network.stage3.block2.conv_a.weight
    expected = (2 / (2 * 64 * 9)) ** 0.5
    assert abs(weight.std().item() / expected - 1) < 4 / (2 * weight.numel()) ** 0.5
    assert not network.classifier.bias.any()


def test_what_cannot_be_built_is_refused():
    with pytest.raises(UserError, match="image_size"):
        small_network("conv6", size=7)
    with pytest.raises(UserError, match="did you mean 'conv4'"):
        small_network("Conv4")
