import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.retrieval import (
    PRIOR_BIAS,
    RETRIEVAL_RESNETS,
    ClassifiedEmbedding,
    MaxAveragePool,
    ResNet,
    hgsl_resnet50,
    prunnet_resnet,
    retrieval_backbone,
    retrieval_pool,
    switchnet_resnet,
)


@pytest.mark.parametrize(
    ("name", "channels", "giga_macs"),
    [("prunnet_resnet18", 512, 6.9), ("prunnet_resnet50", 2048, 16.0), ("switchnet_resnet18", 512, 3.05)],
)
def test_published_shapes_and_costs(name, channels, giga_macs):
    with torch.device("meta"):
        network = RETRIEVAL_RESNETS[name]().eval()
        image = torch.zeros(1, 3, 224, 224)
        with FlopCounterMode(display=False) as counter:
            assert network(image).shape == (1, channels, 14, 14)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, abs=0.06)


def test_hgsl_keeps_the_resolution_of_the_last_stage():
    with torch.device("meta"):
        assert hgsl_resnet50()(torch.zeros(2, 3, 280, 280)).shape == (2, 2048, 18, 18)


@pytest.mark.parametrize(("depth", "theirs"), [(18, torchvision.models.resnet18), (50, torchvision.models.resnet50)])
def test_it_is_torchvisions_network_otherwise(depth, theirs):
    torch.manual_seed(0)
    reference = theirs().eval()
    blocks = {18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3))}[depth]
    network = ResNet(*blocks).eval()
    weights = reference.state_dict()
    network.load_state_dict({name: weights[name] for name in weights if not name.startswith("fc")})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = nn.Sequential(*list(reference.children())[:-2])(images)
        assert torch.equal(network(images), maps)


def test_unknown_depth():
    with pytest.raises(UserError, match="ResNet"):
        prunnet_resnet(19)


def test_switchnet_convolutions_start_by_fan_out():
    weight = switchnet_resnet(18).layer3[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


def test_backbones_by_name():
    for name, channels in (("prunnet_resnet18", 512), ("timm/resnet10t", 512), ("timm/convnext_atto", 320)):
        backbone = retrieval_backbone(name, image_size=64)
        assert backbone.map_shape[0] == channels
        assert backbone.module(torch.randn(2, 3, 64, 64)).shape[1] == channels
    with pytest.raises(UserError, match="pretrained"):
        retrieval_backbone("prunnet_resnet18", image_size=64, pretrained=True)
    with pytest.raises(UserError, match="prunnet"):
        retrieval_backbone("prunnet_resnet181", image_size=64)


def test_maximum_and_mean_are_joined():
    maps = torch.arange(16.0).reshape(1, 2, 2, 4)
    assert MaxAveragePool()(maps).tolist() == [[7, 15, 3.5, 11.5]]
    assert retrieval_pool("max_avg", 5)[1] == 10
    assert retrieval_pool("spoc", 5)[1] == 5


def small_network(**options) -> ClassifiedEmbedding:
    torch.manual_seed(0)
    backbone = ResNet("basic", (1, 1), width=4)
    return ClassifiedEmbedding(backbone, backbone.channels, 7, **options)


def test_embeddings_and_logits():
    images = torch.randn(3, 3, 32, 32)
    network = small_network(dim=10).eval()
    embeddings, logits = network(images)
    assert torch.equal(embeddings, network.embed(images))
    assert torch.equal(logits, network.classifier(embeddings))
    assert (embeddings.shape, logits.shape) == ((3, 10), (3, 7))
    assert [id(p) for p in network.undecayed()] == [id(network.projector.linear.bias), id(network.classifier.bias)]


def test_without_projector_the_pooled_features_are_the_embedding():
    network = small_network(dim=None, pooling="max_avg").eval()
    images = torch.randn(3, 3, 32, 32)
    assert network.dim == 16
    assert torch.equal(network.embed(images), MaxAveragePool()(network.backbone(images)))
    assert network.undecayed() == [network.classifier.bias]


def test_hidden_layers_and_prior():
    network = small_network(dim=10, hidden_layers=2, prior_bias=True)
    assert [type(m).__name__ for m in network.projector.hidden] == ["Linear", "ReLU", "BatchNorm1d", "Dropout"] * 2
    assert torch.sigmoid(torch.tensor(PRIOR_BIAS)).item() == pytest.approx(0.01)
    for linear in (network.projector.linear, network.classifier):
        assert torch.equal(linear.bias, torch.full_like(linear.bias, PRIOR_BIAS))
        assert linear.weight.std().item() == pytest.approx((2 / linear.out_features) ** 0.5, rel=0.25)
