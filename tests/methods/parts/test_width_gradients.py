import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from subnetbench.methods.parts.capacity.integration import draw_orders, integrate_in_place
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork
from subnetbench.methods.parts.capacity.widths import (
    WidthSlices,
    filter_by_filter,
    integrate_widths,
    merge_sfsc,
    shared_weights,
)
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding, ResNet

WIDTHS = (1.0, 0.5, 0.75)


def switchnet() -> SlimmableNetwork:
    torch.manual_seed(0)
    backbone = ResNet("basic", (1, 1), width=4)
    return SlimmableNetwork(
        ClassifiedEmbedding(backbone, backbone.channels, 5, dim=6),
        WIDTHS,
        torch.zeros(1, 3, 24, 24),
        full_outputs=("projector.linear", "projector.norm"),
        unchanged=("classifier",),
    )


def gradients_of(network: SlimmableNetwork):
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(6, 3, 24, 24, generator=generator), torch.arange(6) % 5
    named = dict(network.named_parameters())
    for i in range(len(WIDTHS)):
        loss = F.cross_entropy(network(images, width=i)[1], labels)
        yield dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


def test_shared_weights_are_those_of_convolutions_and_projections():
    network = switchnet()
    names = list(shared_weights(network))
    assert names[0] == "network.backbone.conv1.weight"
    assert names[-2:] == ["network.projector.linear.weight", "network.projector.linear.bias"]
    assert not any("bn" in name or "norm" in name or "classifier" in name for name in names)
    layer_norm = SlimmableNetwork(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (0.5, 1.0), torch.zeros(1, 4))
    assert list(shared_weights(layer_norm)) == ["network.0.weight", "network.0.bias"]


def test_shared_weights_are_integrated_and_the_rest_keeps_its_own():
    network = switchnet()
    gradients = list(gradients_of(network))
    kept = [{name: None if g is None else g.clone() for name, g in part.items()} for part in gradients]
    weights = shared_weights(network)
    orders = draw_orders(len(WIDTHS), filter_by_filter(weights), torch.Generator().manual_seed(2))
    combined = integrate_widths(gradients, weights, orders)
    assert combined.keys() == dict(network.named_parameters()).keys()
    for order, (name, weight) in zip(orders, weights.items(), strict=True):
        stack = [[part[name].clone() for part in kept]]
        ((alone,),) = integrate_in_place(stack, order.unsqueeze(0), by_row=[weight.dim() == 4])
        assert torch.allclose(combined[name], alone)
    for name, gradient in combined.items():
        if ".bn." in name:
            (own,) = [part[name] for part in kept if part[name] is not None]
            assert torch.equal(gradient, own)
    assert torch.equal(combined["network.classifier.weight"], kept[0]["network.classifier.weight"])


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_gradients_of_slices_are_those_of_the_whole_weights(clip_norm):
    network = switchnet()
    slices = WidthSlices(network)
    named = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(6, 3, 24, 24, generator=generator), torch.arange(6) % 5
    for _ in range(2):
        for i, expected in enumerate(gradients_of(network)):
            others = {name: p.detach().requires_grad_() for name, p in named.items() if name not in slices.weights}
            leaves = {**slices.leaves(i), **others}
            loss = F.cross_entropy(functional_call(network, leaves, images, {"width": i})[1], labels)
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            finished = slices.finish(i, dict(zip(leaves, found, strict=True)), clip_norm=clip_norm)
            total = torch.cat([g.flatten() for g in expected.values() if g is not None]).norm().item()
            factor = 1.0 if clip_norm is None else min(1.0, clip_norm / (total + 1e-6))
            for name, gradient in expected.items():
                if gradient is not None:
                    assert torch.allclose(finished[name], factor * gradient, rtol=1e-5, atol=1e-7), name


def test_slices_of_attention_and_grouped_convolutions():
    network = timm.create_model("vit_tiny_patch16_224", embed_dim=24, num_heads=3, depth=1, img_size=32, num_classes=0)
    check_slices(SlimmableNetwork(network, (0.5, 1.0), torch.zeros(1, 3, 32, 32)).eval(), torch.randn(2, 3, 32, 32))
    grouped = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 12, 1, groups=12))
    check_slices(SlimmableNetwork(grouped, (0.5, 1.0), torch.zeros(1, 3, 5, 5)), torch.randn(2, 3, 5, 5))


def check_slices(network: SlimmableNetwork, inputs: torch.Tensor) -> None:
    slices = WidthSlices(network)
    expected = torch.autograd.grad(network(inputs, width=0).square().sum(), list(slices.weights.values()))
    leaves = slices.leaves(0)
    loss = functional_call(network, leaves, inputs, {"width": 0}).square().sum()
    raw = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert sum(leaf.numel() for leaf in leaves.values()) < sum(weight.numel() for weight in slices.weights.values())
    finished = slices.finish(0, raw)
    for name, gradient in zip(slices.weights, expected, strict=True):
        assert torch.allclose(finished[name], gradient, rtol=1e-4, atol=1e-6), name


def test_the_sum_adds_the_widths_up():
    network = switchnet()
    gradients = list(gradients_of(network))
    name = "network.backbone.layer2.0.conv1.weight"
    expected = sum(part[name] for part in gradients)
    combined = integrate_widths(gradients, shared_weights(network), rule="sum")
    assert torch.allclose(combined[name], expected, atol=1e-6)


def test_sfsc_merges_one_flat_vector():
    """Against PCGrad on concatenated vectors with zeros for what a width does not use."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"shared": (4, 3), "first": (5,), "two": (2,)}
    users = {"shared": (0, 1, 2), "first": (0,), "two": (1, 2)}
    gradients = [
        {name: torch.randn(shape, generator=generator) if i in users[name] else None for name, shape in shapes.items()}
        for i in range(3)
    ]
    orders = draw_orders(3, [False], generator)[0]
    flat = torch.stack(
        [
            torch.cat([(torch.zeros(shapes[n]) if g is None else g).flatten() for n, g in part.items()])
            for part in gradients
        ]
    )
    projected = flat.clone()
    for i in range(3):
        for j in orders[i].tolist():
            if (product := projected[i] @ flat[j]) < 0:
                projected[i] -= product / flat[j].square().sum() * flat[j]
    merged = merge_sfsc(gradients, orders)
    found = torch.cat([merged[name].flatten() for name in shapes])
    expected = torch.cat([projected[:, :12].mean(dim=0), projected[:, 12:].sum(dim=0)])
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_width_that_uses_nothing_else_does_not_count():
    merged = merge_sfsc([{"a": torch.ones(2)}, {"a": None, "b": torch.ones(3)}], torch.tensor([[0, 1], [0, 1]]))
    assert merged["a"].tolist() == pytest.approx([1, 1])
    assert merged["b"].tolist() == pytest.approx([1, 1, 1])
