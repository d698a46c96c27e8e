import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from subnetbench.harness.core.metrics import METRICS
from subnetbench.harness.evaluation.cost import (
    cost,
    mac_metrics,
    prunable_weights,
    size_metrics,
    time_metrics,
)


def layer_sparsities(module):
    return {name: 1 - int(weight.count_nonzero()) / weight.numel() for name, weight in prunable_weights(module)}


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


DENSE = 8 * 8 * 8 * 27 + 8 * 8 * 8 * 18 + 320
PARAMETERS = 8 * 27 + 8 + 16 + 8 * 18 + 320 + 10


def test_macs_of_a_dense_network():
    found = mac_metrics(network(), torch.zeros(1, 3, 16, 16))
    assert found["macs_executed"] == DENSE
    assert found["macs_nonzero"] == DENSE
    assert mac_metrics(network(), torch.zeros(4, 3, 16, 16))["macs_executed"] == DENSE


def test_zeros_count_layer_by_layer():
    module = network()
    with torch.no_grad():
        for layer in (0, 2, 5):
            module[layer].weight.fill_(1)
        module[0].weight[:2] = 0
        module[5].weight[:, ::4] = 0
    found = mac_metrics(module, torch.zeros(1, 3, 16, 16))
    assert found["macs_executed"] == DENSE
    assert found["macs_nonzero"] == 8 * 8 * 8 * 27 * 3 / 4 + 8 * 8 * 8 * 18 + 320 * 3 / 4
    assert layer_sparsities(module) == {"0.weight": 0.25, "2.weight": 0.0, "5.weight": 0.25}
    sizes = size_metrics(module)
    assert sizes["sparsity"] == pytest.approx((8 * 27 + 320) / 4 / (8 * 27 + 8 * 18 + 320))
    assert sizes["parameters"] == PARAMETERS
    zeros_elsewhere = sum(int((p == 0).sum()) for name, p in module.named_parameters() if not name.endswith("weight"))
    assert sizes["nonzero_parameters"] == PARAMETERS - zeros_elsewhere - (8 * 27 + 320) / 4


def test_parametrised_weights_count_as_they_are_used():
    module = network()
    prune.random_unstructured(module[5], "weight", amount=80)
    assert layer_sparsities(module)["5.weight"] == pytest.approx(80 / 320)


@pytest.mark.parametrize("written_out", [False, True])
def test_attention_is_counted_whatever_kernel_runs_it(written_out):
    class Attention(nn.Module):
        """One head over 6 tokens of width 8, with a sequence of images as its input."""

        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 1, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(2)
            if not written_out:
                return self.attention(x, x, x, need_weights=False)[0]
            q, k, v = functional.linear(x, self.attention.in_proj_weight, self.attention.in_proj_bias).chunk(3, -1)
            return self.attention.out_proj((q @ k.mT / 8**0.5).softmax(-1) @ v)

    module = Attention().eval()
    with torch.no_grad():
        module.attention.in_proj_weight[:8] = 0
    projections, products = 6 * 8 * 24 + 6 * 8 * 8, 2 * 6 * 6 * 8
    fast_path = torch.backends.mha.get_fastpath_enabled()
    found = mac_metrics(module, torch.randn(1, 6, 2, 4))
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert found["macs_executed"] == projections + products
    assert found["macs_nonzero"] == projections + products - 6 * 8 * 8
    assert layer_sparsities(module)["attention.in_proj_weight"] == pytest.approx(1 / 3)


def test_counting_equals_torchs_counter_on_a_real_network():
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import resnet18

    module, image = resnet18().eval(), torch.randn(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(image)
    for parameter in module.parameters():
        nn.init.ones_(parameter)  # a random weight may be exactly 0
    found = mac_metrics(module, image)
    assert found["macs_executed"] == found["macs_nonzero"] == counter.get_total_flops() / 2


class Watch(nn.Module):
    """Takes 5 s on its first pass with a batch size, then 1, 2, 3, ... ms an image, on a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.passes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        before = self.passes.count(len(x))
        self.now += 1e-3 * before * len(x) if before else 5
        self.passes.append(len(x))
        return x


@pytest.fixture
def watch(monkeypatch):
    module = Watch().eval()
    monkeypatch.setattr("subnetbench.harness.evaluation.cost.time.perf_counter", lambda: module.now)
    return module


def test_time_is_measured_after_warm_up_at_both_batch_sizes(watch):
    found = time_metrics(watch, (3, 4, 5), batch_size=8, warm_up=1, repetitions=21, seconds=100)
    assert watch.passes == [1] * 22 + [8] * 22
    expected = {"latency_ms": 11, "latency_ms_p95": 20, "throughput": 8 / (11e-3 * 8)}
    assert found == pytest.approx(expected)


def test_slow_networks_are_measured_less_often(watch):
    found = time_metrics(watch, (3, 4, 5), batch_size=8, warm_up=1, repetitions=100, seconds=1)
    assert watch.passes == [1] * 4 + [8] * 4
    assert found["latency_ms"] == pytest.approx(2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_the_device():
    module = nn.Conv2d(3, 64, 3, padding=1).eval().cuda()
    found = cost(module, (3, 32, 32), device="cuda", batch_size=16)
    inputs_and_outputs = 4 * 16 * (3 + 64) * 32 * 32
    assert inputs_and_outputs <= found["peak_memory_bytes"] < torch.cuda.get_device_properties(0).total_memory
    assert found.keys() <= METRICS.keys()


def test_all_costs_are_in_the_table_and_nothing_changes():
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = cost(module, (3, 16, 16))
    assert found.keys() <= METRICS.keys()
    assert found["macs_executed"] == DENSE
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(ValueError, match="evaluation mode"):
        cost(network().train(), (3, 16, 16))
