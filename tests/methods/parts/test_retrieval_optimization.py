import pytest
import torch
from torch import nn

from subnetbench.harness.method.stages import Progress
from subnetbench.methods.parts.optim.groups import WarmUpFromZero, decay_groups
from subnetbench.methods.parts.optim.schedules import Constant, MultiStep


def test_groups_hold_each_parameter_once_and_are_never_empty():
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    with_decay, without = decay_groups(parameters, 5e-4, [parameters[1]])
    assert (with_decay["weight_decay"], without["weight_decay"]) == (5e-4, 0.0)
    assert [id(p) for p in with_decay["params"]] == [id(parameters[0]), id(parameters[2])]
    assert [id(p) for p in without["params"]] == [id(parameters[1])]
    assert [group["weight_decay"] for group in decay_groups(parameters, 0.1)] == [0.1]


def test_warm_up_begins_at_zero_and_hands_over():
    schedule = WarmUpFromZero(epochs=2, after=MultiStep((3,)))
    factors = [schedule.factor(Progress(step, 16, step // 4, 4, 4)) for step in range(16)]
    assert factors[:9] == pytest.approx([i / 8 for i in range(8)] + [1.0])
    assert factors[9:] == pytest.approx([1.0] * 3 + [0.1] * 4)
    assert WarmUpFromZero(0, Constant()).factor(Progress(0, 1, 0, 1, 1)) == 1
