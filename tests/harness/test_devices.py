"""Which GPUs there are, and that no run falls to the CPU in silence."""

import pytest
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.distributed.world import choose_device
from subnetbench.harness.execution.devices import visible_gpus


@pytest.mark.parametrize(
    ("variable", "gpus"),
    [
        ("0,1", ("0", "1")),
        (" 3 , 5 ", ("3", "5")),
        ("GPU-1a2b,MIG-77", ("GPU-1a2b", "MIG-77")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("NoDevFiles", ()),
        ("none", ()),
    ],
)
def test_gpus_are_those_that_cuda_would_see(tiny_spec, monkeypatch, variable, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus([tiny_spec(device="auto")]) == gpus
    assert visible_gpus([tiny_spec(device="cpu")]) == ()


@pytest.mark.parametrize(("gpus", "processes"), [(1, 2), (2, 4)])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused(monkeypatch, gpus, processes, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=f"{processes} processes need {processes} GPUs, there are {gpus}"):
        choose_device(Compute(processes=processes, device=device))
    assert choose_device(Compute(processes=processes, device="cpu")) == "cpu"
    assert choose_device(Compute(processes=gpus, device=device)) == "cuda"
