import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.batch_norm import (
    batch_norms,
    freeze_batch_norms,
    load_running_statistics,
    recalibrate,
    running_momentum,
    running_statistics,
    running_statistics_kept,
)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2), nn.BatchNorm1d(2))


BATCHES = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))


def test_kept_statistics_do_not_change_and_the_batch_is_used():
    net = network().train()
    net[2].eval()
    before = running_statistics(net)
    usual = net(BATCHES[0])
    load_running_statistics(net, before)
    with running_statistics_kept(net):
        assert torch.equal(net(BATCHES[0]), usual)
    after = running_statistics(net)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    net(BATCHES[0])
    assert not torch.equal(running_statistics(net)["1.running_mean"], before["1.running_mean"])


def test_layers_in_evaluation_mode_keep_using_their_statistics():
    net = network().eval()
    expected = net(BATCHES[0])
    with running_statistics_kept(net):
        assert torch.equal(net(BATCHES[0]), expected)


def test_one_update_at_a_higher_momentum_is_two_at_the_usual():
    twice, once = network().train(), network().train()
    once.load_state_dict(twice.state_dict())
    for net in (twice, once):
        net[2].eval()
    twice(BATCHES[0])
    twice(BATCHES[0])
    with running_momentum(once, 1 - 0.9**2):
        once(BATCHES[0])
    assert once[1].momentum == 0.1
    for name, value in running_statistics(once).items():
        if "num" not in name:
            assert torch.allclose(value, running_statistics(twice)[name], atol=1e-6)


def test_recalibration_is_the_mean_over_batches():
    net = nn.Sequential(nn.BatchNorm1d(4))
    found = recalibrate(net, BATCHES)
    assert torch.allclose(found["0.running_mean"], BATCHES.mean(dim=(0, 1)), atol=1e-6)
    assert torch.allclose(found["0.running_var"], BATCHES.var(dim=1).mean(dim=0), atol=1e-6)


def test_recalibration_with_momentum_is_an_exponential_average():
    net = nn.Sequential(nn.BatchNorm1d(4))
    found = recalibrate(net, BATCHES, momentum=0.1)
    mean, var = torch.zeros(4), torch.ones(4)
    for batch in BATCHES:
        mean, var = 0.9 * mean + 0.1 * batch.mean(dim=0), 0.9 * var + 0.1 * batch.var(dim=0)
    assert torch.allclose(found["0.running_mean"], mean, atol=1e-6)
    assert torch.allclose(found["0.running_var"], var, atol=1e-6)


def test_recalibration_forgets_the_past_restores_modes_and_runs_no_dropout():
    net = network().train()
    net[4].eval()
    first = recalibrate(net, BATCHES)
    assert [module.training for module in net] == [True, True, True, True, False]
    assert net[1].momentum == 0.1
    net(BATCHES[1])
    second = recalibrate(net, BATCHES)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_recalibration_of_other_weights():
    net = network()
    seen = []
    recalibrate(net, BATCHES, forward=lambda batch: seen.append(net(2 * batch)))
    assert len(seen) == len(BATCHES)
    assert torch.allclose(net[1].running_mean, net[0](2 * BATCHES).mean(dim=(0, 1)), atol=1e-5)


def test_without_images_there_is_nothing_to_calibrate_with():
    with pytest.raises(UserError, match="images"):
        recalibrate(network(), [])
    assert recalibrate(nn.Sequential(nn.Linear(2, 2)), []) == {}


def test_frozen_layers_are_in_evaluation_mode():
    net = network().train()
    freeze_batch_norms(net)
    assert [layer.training for layer in batch_norms(net).values()] == [False, False]
    assert net[2].training


def test_statistics_of_several_capacities_are_loaded_one_after_the_other():
    net = network()
    by_capacity = {c: recalibrate(net, BATCHES[: i + 1]) for i, c in enumerate((0.2, 0.1 + 0.2, 1.0))}
    assert sum(map(len, by_capacity.values())) == 3 * len(running_statistics(net))
    load_running_statistics(net, by_capacity[0.1 + 0.2])
    assert torch.equal(net[1].running_mean, by_capacity[0.1 + 0.2]["1.running_mean"])


def test_statistics_of_another_network_are_refused():
    statistics = running_statistics(network())
    with pytest.raises(UserError, match="another network"):
        load_running_statistics(nn.Sequential(nn.BatchNorm1d(3)), statistics)
    statistics["1.running_mean"] = torch.zeros(7)
    with pytest.raises(UserError, match="another width"):
        load_running_statistics(network(), statistics)
