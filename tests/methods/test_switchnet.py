"""SwitchNet as a method: every way of training its widths, and the networks that come out."""

import pytest
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.testing.short_runs import train_here


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"training": "compatible"},
        {"training": "compatible", "gradients": "sum"},
        {"training": "compatible", "gradients": "pcgrad", "heads": "all"},
        {"training": "joint"},
        {"training": "sfsc"},
        {"training": "sfsc", "evidential": True},
        {"training": "asymmetric", "samples_per_class": 4},
        {"training": "multi_independent"},
    ],
    ids=str,
)
def test_ways_of_training_several_widths(options, short_run):
    with short_run("switchnet", **options) as (method, modules, context):
        variants = method.variants(modules, context)
        assert [variant.name for variant in variants] == ["dense", "capacity_0.6", "capacity_0.3"]
        for variant, expected in zip(variants, (1.0, 0.6, 0.3), strict=True):
            assert variant.capacity == pytest.approx(expected, rel=0.1)
        networks = [variant.build() for variant in variants]
        sizes = [sum(p.numel() for p in network.backbone.parameters()) for network in networks]
        assert sizes[0] > sizes[1] > sizes[2]
        images = torch.randn(2, 3, 16, 16)
        assert {network(images).shape for network in networks} == {(2, 16)}
        trained = {name: value.clone() for name, value in modules.state_dict().items()}
    with short_run("switchnet", epochs=0, **options) as (_, modules, _):
        start = modules.state_dict()
    # Every parameter of every width has moved, those of its own batch norms too.
    parameters = [name for name in start if name.endswith((".weight", ".bias"))]
    still = [name for name in parameters if torch.equal(trained[name], start[name])]
    assert [name for name in still if not name.endswith("projector.linear.bias")] == []


def test_widths_by_name(short_run):
    with short_run("switchnet", widths=[0.5, 0.75]) as (method, modules, context):
        assert [v.name for v in method.variants(modules, context)] == ["dense", "width_0.75", "width_0.5"]


def test_published_widths_of_capacities():
    cls = get_method("switchnet")
    config = cls.Config.parse({"capacities": [0.8, 0.6, 0.4, 0.2]})
    assert list(config.named_widths().values()) == [1.0, 0.8944, 0.7746, 0.6325, 0.4472]


def test_an_independent_network_is_alone(short_run):
    with short_run("switchnet", training="independent", capacities=[0.3]) as (method, modules, context):
        (variant,) = method.variants(modules, context)
        assert variant.name == "capacity_0.3"
        assert method.pairs([variant]) == [(variant, variant)]
    with pytest.raises(UserError, match="of one capacity"):
        short_run("switchnet", training="independent")


def test_a_network_trained_against_a_finished_classifier(short_spec, tmp_path):
    spec = short_spec("switchnet", training="bct", capacities=[0.3])
    (dense,) = spec.dependencies()
    assert execute(dense, tmp_path, RunSettings(trackers=())) == "finished"
    with train_here(spec, tmp_path / "own", inputs=tmp_path) as (method, modules, context):
        old = context.inputs["dense"].modules["network"].classifier
        assert torch.equal(modules["network"].classifier.weight, old.weight)
        own, frozen = method.variants(modules, context)
        assert (own.name, frozen.name) == ("capacity_0.3", "dense")
        assert own.space == frozen.space == dense.run_id
        assert len(method.pairs([own, frozen])) == 4


def test_a_network_that_cannot_be_narrowed_is_refused(short_run):
    # Its blocks scale channels by parameters that no layer owns.
    with (
        pytest.raises(UserError, match="smaller width"),
        short_run("switchnet", network="convnext_tiny", image_size=32),
    ):
        pass


@pytest.mark.parametrize(
    "network",
    [
        "resnet18",
        "mobilenet_v2",
        "resnext50_32x4d",
        "timm/convnext_tiny",
        "timm/vit_small_patch16_224",
        "timm/swin_tiny_patch4_window7_224",
    ],
)
def test_backbones(network, short_run):
    options = {"batch_size": 4, "limit_steps": 1, "image_size": 32, "capacities": [0.5], "recalibration": "none"}
    with short_run("switchnet", network=network, optimizer="adamw", lr=1e-4, **options) as (method, modules, context):
        dense, half = method.variants(modules, context)
        assert half.capacity == pytest.approx(0.5, abs=0.1)
        images = torch.randn(2, 3, 32, 32)
        assert dense.build()(images).shape == half.build()(images).shape == (2, 16)
