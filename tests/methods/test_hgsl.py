"""HGSL as a method: its roles, its preset, and what its options change."""

import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.method.stages import Stage
from subnetbench.harness.testing.short_runs import short_spec, train_here
from subnetbench.methods.hgsl import Hgsl
from subnetbench.methods.parts.losses.hgsl import HardGlobalSoftmin
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.networks.pooling import make_pool


def modules_of(method: Hgsl) -> nn.ModuleDict:
    network = EmbeddingNetwork(nn.Conv2d(3, 4, 1), make_pool("gem", 4), 4)
    return nn.ModuleDict({"network": network, "loss": HardGlobalSoftmin(5, 4, learn_alpha=method.config.learn_alpha)})


def groups_of(**config):
    method = Hgsl(Hgsl.Config(**config))
    modules = modules_of(method)
    optimizers = method.optimizers(modules, Stage("train", 1), context=None)
    named = {id(parameter): name for name, parameter in modules.named_parameters()}
    return optimizers, {
        named[id(parameter)]: group
        for optimization in optimizers.values()
        for group in optimization.optimizer.param_groups
        for parameter in group["params"]
    }


def test_every_role_has_its_rate_and_its_clip():
    optimizers, groups = groups_of(lr=0.01, centre_lr=0.2, alpha_lr=1e-6, clip_norm=3.0)
    assert list(optimizers) == ["network", "centres", "alpha"]
    assert {optimization.clip_norm for optimization in optimizers.values()} == {3.0}
    assert groups["network.backbone.weight"]["lr"] == 0.01
    assert groups["loss.directions"]["lr"] == 0.2
    assert groups["loss.alpha"]["lr"] == 1e-6
    assert groups["network.pool.p"]["weight_decay"] == 0.0


def test_the_paper_clips_everything_together():
    optimizers, groups = groups_of(preset="paper")
    assert list(optimizers) == ["all"]
    assert groups["loss.alpha"]["lr"] == 1e-5
    assert {group["weight_decay"] for name, group in groups.items() if "pool" not in name} == {5e-6}
    assert groups["network.backbone.weight"]["momentum"] == 0.9


def test_a_fixed_alpha_is_in_no_optimizer():
    optimizers, groups = groups_of(learn_alpha=False)
    assert list(optimizers) == ["network", "centres"]
    assert "loss.alpha" not in groups


def test_the_published_recipe():
    config = Hgsl.Config.parse({"preset": "paper"})
    assert (config.network, config.pretrained, config.image_size) == ("hgsl_resnet50", True, 280)
    assert (config.epochs, config.batch_size, config.lr, config.schedule) == (100, 84, 0.005, "constant")
    assert (config.k, config.pool, config.dim, config.centres, config.augment) == (
        1,
        "max_avg",
        None,
        "ratio",
        "square",
    )


@pytest.mark.parametrize("k", [0, -1, "some"])
def test_impossible_numbers_of_centres(k):
    with pytest.raises(UserError, match="k"):
        Hgsl.Config.parse({"k": k})


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"k": 3}, {"k": "all", "centres": "ratio"}, {"dim": 16, "pool": "gem"}])
def test_alpha_and_centres_are_trained_with_every_option(config, tmp_path):
    spec = resolve("hgsl", "emoji", config={**short_spec("hgsl").config, "alpha_lr": 1e-3, **config})
    with train_here(spec, tmp_path, inputs=tmp_path) as (method, modules, context):
        torch.manual_seed(0)
        start = method.build(context)["loss"]
        assert modules["loss"].directions.shape == (200, modules["network"].dim)
        assert modules["loss"].alpha > start.alpha  # its gradient is never positive at k = 1, nor at first with k > 1
        assert not torch.equal(modules["loss"].directions, start.directions)
