import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.methods.parts.networks.embedding import ROLES, EmbeddingNetwork, embedding_network
from subnetbench.methods.parts.networks.feature_maps import feature_map_backbone
from subnetbench.methods.parts.networks.whitening import pca_whitening


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("architecture", "image_size", "depth"),
    [
        ("cifar_resnet8", 32, 64),
        ("cifar_resnet14x2", 32, 128),
        ("resnet18", 40, 512),
        ("mobilenet_v3_small", 40, 576),
        ("mnasnet0_5", 64, 1280),
        ("vit_b_32", 64, 768),
        ("timm/resnet18", 40, 512),
        ("mobilenetv3_small_050", 40, 288),
        ("vit_tiny_patch16_224", 64, 192),
        ("convnext_atto", 40, 320),
    ],
)
def test_every_parameter_of_a_backbone_serves_its_map(architecture, image_size, depth):
    network = embedding_network(architecture, image_size=image_size, dim=8)
    assert network.whitening.in_features == depth
    embeddings = network(torch.randn(2, 3, image_size, image_size))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    embeddings.sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_networks_of_one_channel():
    for architecture in ("cifar_resnet8", "mobilenetv3_small_050"):
        network = embedding_network(architecture, image_size=32, channels=1, dim=None).eval()
        assert network(torch.randn(1, 1, 32, 32)).shape == (1, network.dim)


def test_unusable_architectures():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        feature_map_backbone("resnet_18", image_size=32)
    with pytest.raises(UserError, match="6 n \\+ 2"):
        feature_map_backbone("cifar_resnet9", image_size=32)
    with pytest.raises(UserError, match="does not run on 8 x 8 images"):
        feature_map_backbone("squeezenet1_0", image_size=8)
    with pytest.raises(UserError, match="no pretrained weights"):
        feature_map_backbone("cifar_resnet8", image_size=32, pretrained=True)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model", refuse)
    with pytest.raises(DataError, match="no network"):
        feature_map_backbone("resnet18", image_size=32, pretrained=True)


def test_an_embedding_does_not_depend_on_its_batch():
    network = embedding_network("cifar_resnet8", image_size=32, dim=16).eval()
    images = torch.randn(7, 3, 32, 32)
    together = network(images)
    torch.testing.assert_close(torch.cat([network(image.unsqueeze(0)) for image in images]), together)


def test_embeddings_are_in_single_precision_under_autocast():
    network = embedding_network("cifar_resnet8", image_size=32, dim=16).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = network(images)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4), atol=1e-4, rtol=0)


def test_without_whitening_descriptors_are_the_embeddings():
    network = embedding_network("cifar_resnet8", image_size=32, pool="mac", dim=None).eval()
    images = torch.randn(2, 3, 32, 32)
    assert network.dim == 64
    assert torch.equal(network(images), network.descriptors(images))
    with pytest.raises(TypeError, match="no whitening"):
        network.set_whitening(torch.zeros(64), torch.eye(64))


def test_frozen_batch_statistics_stay_while_scales_learn():
    network = embedding_network("cifar_resnet8", image_size=32, dim=16, freeze_batch_statistics=True).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    scale = network.backbone[1].weight
    images = torch.randn(4, 3, 32, 32)
    embeddings = network(images)
    embeddings[:, 0].sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert scale.grad.abs().sum() > 0
    assert network.training
    torch.testing.assert_close(embeddings, network.eval()(images))


def test_roles_hold_every_parameter_once():
    network = embedding_network("cifar_resnet8", image_size=32, dim=16)
    groups = network.parameter_groups(0.1, 0.01, pool_lr_multiplier=10)
    assert [group["name"] for group in groups] == list(ROLES)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, network.parameters()))
    assert [group["lr"] for group in groups] == [0.1, 1.0, 0.1]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01]
    bare = embedding_network("cifar_resnet8", image_size=32, pool="mac", dim=None)
    assert [group["name"] for group in bare.parameter_groups(0.1)] == ["backbone"]


def test_whitening_from_data_decorrelates_the_embeddings_before_the_last_normalisation():
    network = EmbeddingNetwork(nn.Identity(), nn.Flatten(), 6, 4)
    vectors = torch.rand(300, 6) @ torch.rand(6, 6)
    network.set_whitening(*pca_whitening(network.descriptors(vectors)))
    whitened = network.whitening(network.descriptors(vectors))
    torch.testing.assert_close(torch.cov(whitened.T, correction=0), torch.eye(4), atol=1e-3, rtol=0)
