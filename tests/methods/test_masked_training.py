"""Micro-batches through masks: the gradients of the whole batch, from masks that are computed once."""

from dataclasses import replace

import pytest
import torch

from subnetbench.harness.method import Progress
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.testing.short_runs import train_here
from subnetbench.methods.lottery_ticket import LotteryTicket
from subnetbench.methods.parts.masks.masks import Mask

CONFIG = {"network": "conv2", "image_size": 8, "batch_size": 50, "limit_steps": 2, "augment": False}
METHODS = {
    "aslp": {"epochs": 1, "weight_rescale": True, "sampled_masks": 1},
    "supermask": {"epochs": 1, "weight_rescale": True, "lr": 5.0, "sampled_masks": 1},
    "biprop": {"epochs": 1},
    "edge_popup": {"epochs": 1},
    "gradual_magnitude": {"epochs": 1},
    "magnitude": {"epochs": 1, "finetune_epochs": 1},
    "continuous_sparsification": {"epochs": 1, "rounds": 1, "prune_only": True, "lr": 0.01},
}


@pytest.mark.parametrize("method", METHODS)
def test_masks_are_computed_once_a_pass_whatever_the_micro_batches(method, tmp_path, monkeypatch):
    ended, counts = {}, {}
    for size in (None, 20):
        counts[size] = 0
        for name in ("search", "final"):
            count_calls(monkeypatch, name, counts, size)
        spec = resolve(method, "digits", config={**CONFIG, **METHODS[method], "micro_batch_size": size})
        with train_here(spec, tmp_path / str(size), inputs=tmp_path) as (_, modules, _):
            ended[size] = {name: value.clone() for name, value in modules.state_dict().items()}
        monkeypatch.undo()
    assert counts[None] == counts[20] > 0
    for name, value in ended[None].items():
        if value.is_floating_point():
            torch.testing.assert_close(ended[20][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def count_calls(monkeypatch, name, counts, key):
    """Count what training asks of masks: calls with gradients enabled."""
    for kind in Mask.__subclasses__() + [sub for cls in Mask.__subclasses__() for sub in cls.__subclasses__()]:
        if name in vars(kind):
            original = vars(kind)[name]

            def counted(self, *args, original=original):
                counts[key] += torch.is_grad_enabled()
                return original(self, *args)

            monkeypatch.setattr(kind, name, counted)


def test_multistep_falls_at_the_milestones_and_unset_ones_are_no_part_of_a_config():
    assert "milestones" not in resolve("dense", "emoji").config
    progress = Progress(step=0, total_steps=8, epoch=0, epochs=8, steps_per_epoch=1)
    factors = {}
    for milestones in (None, (0.25,)):
        config = {"schedule": "multistep", "epochs": 8, **({"milestones": milestones} if milestones else {})}
        spec = resolve("lottery_ticket", "emoji", config=config)
        schedule = LotteryTicket(LotteryTicket.Config.parse(spec.config)).schedule()
        factors[milestones] = [round(schedule.factor(replace(progress, epoch=epoch)), 6) for epoch in range(8)]
    assert factors == {None: [1.0] * 4 + [0.1] * 2 + [0.01] * 2, (0.25,): [1.0] * 2 + [0.1] * 6}
