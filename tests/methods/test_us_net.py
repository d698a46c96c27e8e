"""Universally slimmable networks: shared norms, the gradient of a step by its formula, widths never trained."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.stages import Progress
from subnetbench.harness.method.step import LogSums, Step
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork
from subnetbench.methods.us_net import USNet

TINY = {"network": "cnn8-8", "capacities": [0.25], "grid": 4}


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6))


def test_shared_norms_are_leading_entries_and_only_the_full_width_moves_statistics():
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    network = SlimmableNetwork(small(), [1.0, 0.5], images, shared_norms=True)
    assert network.state_dict().keys() == {f"network.{name}" for name in small().state_dict()}
    before = {name: value.clone() for name, value in network.named_buffers()}
    narrow = network.train()(images, width=1)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    # By hand: the leading halves, normalised by the batch.
    first, norm, _, last, other = small()
    x = nn.functional.conv2d(images, first.weight[:4], first.bias[:4])
    x = nn.functional.batch_norm(x, None, None, norm.weight[:4], norm.bias[:4], training=True).relu()
    x = nn.functional.conv2d(x, last.weight[:3, :4], last.bias[:3])
    x = nn.functional.batch_norm(x, None, None, other.weight[:3], other.bias[:3], training=True)
    torch.testing.assert_close(narrow, x)
    network(images, width=0)
    assert not torch.equal(network.network[1].running_mean, before["network.1.running_mean"])
    for index, channels in ((0, 6), (1, 3)):
        plain = network.plain(index).eval()
        assert type(plain[4]) is nn.BatchNorm2d
        assert plain[4].num_features == channels == len(plain[4].running_mean)
        torch.testing.assert_close(plain(images), network.eval()(images, width=index))


def test_a_network_of_other_widths_takes_the_weights():
    images = torch.randn(4, 3, 5, 5)
    one = SlimmableNetwork(small(), [1.0, 0.5], images, shared_norms=True).eval()
    other = SlimmableNetwork(small(), [1.0, 0.75, 0.5], images, shared_norms=True).eval()
    for parameter in one.parameters():
        nn.init.normal_(parameter, std=0.3)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(images, width=2), one(images, width=1))


@pytest.mark.parametrize("training", ["distilled", "labels"])
def test_a_step_adds_up_the_sandwich(training, short_run):
    with short_run("us_net", **{**TINY, "training": training, "epochs": 0}) as (method, modules, context):
        network, stage = modules["network"].train(), method.stages(context)[0]
        batch = method.make_batch(torch.arange(12).numpy(), stage, 0, context)
        optimizations = method.optimizers(modules, stage, context)
        step = Step(
            micro_batches=[batch],
            global_size=12,
            progress=Progress(3, 10, 0, 1, 10),
            optimizations=optimizations,
            world=context.world,
            seed=context.seed,
            stage=stage.name,
            buffers=[],
            logs=LogSums(context.device),
        )
        step.update = lambda *names: None
        method.training_step(modules, step)
        found = {name: None if p.grad is None else p.grad.clone() for name, p in modules.named_parameters()}
        drawn = method._drawn(step.generator("noise"))
        assert drawn[:2] == [0, 3]
        assert set(drawn[2:]) == {1, 2}
        assert method.step_kind(stage, 3, context) == str(drawn)
        full = network(batch.images, width=0)[1]
        loss = cross_entropy(full, batch.labels)
        for index in drawn[1:]:
            logits = network(batch.images, width=index)[1]
            if training == "labels":
                loss = loss + cross_entropy(logits, batch.labels)
            else:
                p = full.detach().softmax(1)
                loss = loss + (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
        names, parameters = zip(*modules.named_parameters(), strict=True)
        for name, expected in zip(names, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_widths_that_were_never_trained_run(short_run):
    with short_run("us_net", **{**TINY, "limit_steps": 1}) as (method, modules, context):
        small, whole = (method.variant_on_demand(name, modules, context) for name in ("capacity_0.5", "dense"))
        assert whole is None
        dense, narrow = method.variants(modules, context)
        assert narrow.capacity < small.capacity < dense.capacity == 1
        images = torch.randn(2, 3, 16, 16)
        assert small.build()(images).shape == narrow.build()(images).shape
        again = method.variant_on_demand("capacity_0.25", modules, context)
        torch.testing.assert_close(again.build()(images), narrow.build()(images))


def test_widths_are_equally_spaced_between_the_ends():
    config = USNet.Config(capacities=(0.36, 0.16), grid=4)
    assert config.trained_widths() == [1.0, 0.8, 0.6, 0.4]
    assert config.named_widths() == {"dense": 1.0, "capacity_0.36": 0.6, "capacity_0.16": 0.4}
    for wrong in ({"dim": None}, {"recalibration": "none"}, {"capacities": [1.0]}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            USNet.Config.parse(wrong)
