"""What computing the weight gradients of depthwise convolutions strip by strip saves in a training step on a CPU.

Skipped by default. Run with
`OMP_NUM_THREADS=1 pytest -o addopts="--import-mode=importlib" tests/benchmarks/test_depthwise_step.py -s`.
Steps of both kinds alternate, and the median of their ratios counts.
"""

import time
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from subnetbench.harness.distributed.allocator import keep_freed_memory
from subnetbench.methods.parts.networks.feature_maps import feature_map_backbone

ROUNDS = 12


def as_usual(network: nn.Module) -> nn.Module:
    """The same network, its gradients computed by PyTorch alone."""
    for layer in network.modules():
        vars(layer).pop("forward", None)
    return network


def seconds(network: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    network.zero_grad()
    network(images).square().mean().backward()
    return time.perf_counter() - start


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize(
    ("name", "batch", "allowed"), [("tf_efficientnet_lite0", 32, 0.97), ("timm/convnext_tiny", 16, 0.97)]
)
def test_step_of_a_network_with_large_depthwise_kernels(name, batch, allowed, benchmark):
    keep_freed_memory()
    images = torch.randn(batch, 3, 64, 64)
    strips, usual = (feature_map_backbone(name, image_size=64).module.train() for _ in range(2))
    as_usual(usual)
    for network in (strips, usual):
        seconds(network, images)
    pairs = [(seconds(strips, images), seconds(usual, images)) for _ in range(ROUNDS)]
    ratio = median(a / b for a, b in pairs)
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(seconds, (strips, images), rounds=2)
    print(f"\n{name}: {ratio:.2f} of {median(b for _, b in pairs) * 1e3:.0f} ms")
    assert ratio <= allowed
