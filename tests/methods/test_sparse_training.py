"""Pruning and regrowth during training, against the formulas of their papers computed again."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.testing.short_runs import train_here
from subnetbench.methods.gradual_magnitude import CubicSchedule, GradualMagnitude
from subnetbench.methods.parts.masks.budgets import kept_by_share
from subnetbench.methods.rigl import RigL, moved

CONFIG = {"network": "conv2", "image_size": 8, "batch_size": 32, "epochs": 2, "limit_steps": 2, "augment": False}


def spec_of(method, **config):
    return resolve(method, "digits", config={**CONFIG, **config})


def test_sparsity_follows_the_cube_at_evenly_spread_steps():
    begin, every, prunings, initial, final = 3, 4, 10, 0.1, 0.9
    schedule = CubicSchedule(initial, final, begin, begin + every * prunings, prunings)
    found = {step: value for step in range(100) if (value := schedule.due(step)) is not None}
    assert found == pytest.approx(
        {
            t: final + (initial - final) * (1 - (t - begin) / (prunings * every)) ** 3
            for t in range(begin, begin + prunings * every + 1, every)
        }
    )


@given(st.integers(1, 9), st.integers(1, 50), st.floats(0, 0.99), st.floats(0.01, 1), st.integers(1, 60))
def test_the_final_sparsity_is_reached_in_the_epoch_that_says_so(epochs, steps, begins, ends, prunings):
    config = GradualMagnitude.Config(
        epochs=epochs, pruning_begins=min(begins, ends), pruning_ends=ends, prunings=prunings, sparsity=0.7
    )
    schedule = config.sparsities(steps)
    due = {step: value for step in range(epochs * steps) if (value := schedule.due(step)) is not None}
    assert list(due.values()) == sorted(due.values())
    assert len(due) <= prunings + 1
    assert due[max(due)] == 0.7
    assert max(due) // steps == config.epoch_at(ends)
    assert max(due) / (epochs * steps) <= ends


@pytest.mark.parametrize(
    "config", [{"pruning_begins": 0.8}, {"initial_sparsity": 0.6}, {"epochs": 0}, {"pruning_ends": 0.0}]
)
def test_schedules_that_cannot_be_are_refused(config):
    with pytest.raises(UserError):
        GradualMagnitude.Config.parse(config)


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
def test_gradual_pruning_ends_at_its_sparsity_whichever_epoch_is_best(scope, tmp_path, monkeypatch):
    method = get_method("gradual_magnitude")
    values = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(method, "validate", lambda *_: {"top1": next(values)})
    spec = spec_of("gradual_magnitude", scope=scope, sparsity=0.9, epochs=4, pruning_ends=0.5, patience=1)
    with train_here(spec, tmp_path, inputs=tmp_path) as (_, modules, _):
        masks = {name: modules["network"].score(name) for name in modules["network"].names}
    budget = kept_by_share({name: mask.shape for name, mask in masks.items()}, 0.9)
    entries = sum(mask.numel() for mask in masks.values())
    expected = sum(budget.values()) if scope == "layer" else entries - round(0.9 * entries)
    assert sum(int(mask.sum()) for mask in masks.values()) == expected
    # The third epoch is the first that counts, and the fourth is worse.
    assert list(values) == []


def reference_move(weight, mask, growth, share):
    """Algorithm 1 of Evci et al. by sorting lists."""
    flat = [(abs(w), g, m) for w, g, m in zip(weight.flatten(), growth.flatten(), mask.flatten(), strict=True)]
    kept = [i for i, (_, _, m) in enumerate(flat) if m]
    count = int(share * len(kept))
    dropped = sorted(kept, key=lambda i: flat[i][0])[:count]
    staying = set(kept) - set(dropped)
    others = sorted(set(range(len(flat))) - staying, key=lambda i: -flat[i][1])
    result = np.zeros(len(flat), bool)
    result[[*staying, *others[:count]]] = True
    return result.reshape(mask.shape)


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 0.99))
def test_connections_move_as_the_algorithm_says(seed, density, share):
    draw = np.random.default_rng(seed)
    weight, growth, mask = draw.normal(size=(5, 4)), draw.random((5, 4)), draw.random((5, 4)) < density
    found = moved(torch.from_numpy(weight), torch.from_numpy(mask), torch.from_numpy(growth), share)
    assert (found.numpy() == reference_move(weight, mask, growth, share)).all()


def test_the_share_that_moves_falls_as_a_cosine_and_is_constant_for_set():
    rigl = RigL.Config(update_every=10, updates_end=0.5, drop_fraction=0.4)
    assert [rigl.share_moved(step, 100) for step in (0, 10, 40, 5, 50, 60)] == pytest.approx(
        [0.4, 0.2 * (1 + math.cos(math.pi / 5)), 0.2 * (1 + math.cos(4 * math.pi / 5)), 0, 0, 0]
    )
    set_ = RigL.Config(update_every=10, updates_end=1, drop_fraction=0.4, drop_decay="constant", growth="random")
    assert [set_.share_moved(step, 100) for step in (0, 90, 95)] == [0.4, 0.4, 0]


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_training_with_moving_connections_is_that_of_a_plain_implementation(growth, tmp_path, monkeypatch):
    """Masked SGD with momentum and decay, written out for one layer; new connections start at 0 without momentum."""
    layer, checked, buffer = "fc1.weight", [], None
    original = RigL.training_step

    def compared(self, modules, step):
        nonlocal buffer
        masked, config = modules["network"], self.config
        plain = copy.deepcopy(masked.base)
        weight, before = masked.weight(layer).detach().clone(), masked.score(layer).clone()
        for name in masked.names:
            plain.get_parameter(name).data.mul_(masked.score(name))
        loss = sum(F.cross_entropy(plain(b.images), b.labels, reduction="sum") for b in step.micro_batches)
        loss = loss / sum(map(len, step.micro_batches))
        dense = torch.autograd.grad(loss, plain.get_parameter(layer))[0]
        original(self, modules, step)
        after, share = masked.score(layer), config.share_moved(step.progress.step, step.progress.total_steps)
        if growth == "gradient":
            expected = reference_move(weight.numpy(), before.numpy(), dense.abs().numpy(), share)
            assert (after.numpy() == expected).all()
            weight = torch.where(after & ~before, 0.0, weight)
            slope = dense * after + config.weight_decay * weight
            momentum = 0.0 if buffer is None else torch.where(after & ~before, 0.0, config.momentum * buffer)
            buffer = slope + momentum
            expected_weight = weight - config.lr * buffer
            torch.testing.assert_close(masked.weight(layer)[after], expected_weight[after])
        assert int(after.sum()) == int(before.sum())
        checked.append(int((after & ~before).sum()))

    monkeypatch.setattr(RigL, "training_step", compared)
    spec = spec_of("rigl", growth=growth, update_every=1, micro_batch_size=20, schedule="constant", lr=0.05)
    with train_here(spec, tmp_path, inputs=tmp_path) as (method, modules, context):
        (variant,) = method.variants(modules, context)
        nonzero = int(torch.count_nonzero(variant.build().get_parameter(layer)))
        kept = int(modules["network"].score(layer).sum())
    # Where no signal passes, what is grown stays 0: largest gradients are none of those.
    assert nonzero == kept if growth == "gradient" else 0.8 * kept < nonzero <= kept
    # The last of four steps lies behind `updates_end`.
    assert [count > 0 for count in checked] == [True, True, True, False]
