"""Settings as executed: what torch says, not what was asked for; and no GPU run that trains on the CPU."""

import pytest
import torch

from subnetbench.harness.core.errors import RunFailure, UserError
from subnetbench.harness.distributed.compute import GPU_REQUESTED, Compute
from subnetbench.harness.distributed.numerics import read_numerics
from subnetbench.harness.distributed.world import choose_device, open_world
from subnetbench.harness.execution.slurm.resources import Resources


@pytest.fixture
def settings():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def world_of(**compute):
    return open_world(Compute.parse({"device": "cpu", **compute}))


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_on_only_where_it_was_asked_for(settings, precision, allowed):
    """Torch lets convolutions use TF32 unless it is told not to."""
    torch.backends.cudnn.allow_tf32 = True
    world = world_of(precision=precision)
    try:
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        world.close()


def test_convolutions_in_tf32_are_not_called_fp32(settings):
    """Whoever turns it on, a plug-in for one: the label follows what torch says."""
    read = {"autocast": False, "processes": 1, "micro_batch": None}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    assert read_numerics(torch.device("cuda"), **read).precision == "fp32"
    torch.backends.cudnn.allow_tf32 = True
    found = read_numerics(torch.device("cuda"), **read)
    assert (found.precision, str(found)) == ("tf32", "cuda, tf32 (convolutions only)")
    torch.backends.cuda.matmul.allow_tf32 = True
    assert str(read_numerics(torch.device("cuda"), **read)) == "cuda, tf32"


def test_mixed_precision_is_read_inside_it():
    world = world_of(precision="bf16")
    try:
        found = world.numerics(micro_batch=4)
        assert (found.autocast, found.precision, found.micro_batch) == ("bfloat16", "bf16", 4)
    finally:
        world.close()


@pytest.mark.parametrize("variable", [GPU_REQUESTED, "SLURM_JOB_GPUS"])
def test_a_run_that_holds_a_gpu_does_not_train_on_the_cpu(monkeypatch, variable):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv(GPU_REQUESTED, raising=False)
    monkeypatch.delenv("SLURM_JOB_GPUS", raising=False)
    assert choose_device(Compute()) == "cpu"
    monkeypatch.setenv(variable, "0")
    with pytest.raises(RunFailure, match="was given a GPU") as raised:
        choose_device(Compute())
    assert raised.value.reason == "no-gpu"
    assert choose_device(Compute(device="cpu")) == "cpu"
    with pytest.raises(UserError, match="no GPU"):
        choose_device(Compute(device="cuda"))


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({"gpus": 2}, 2),
        ({"sbatch": {"gres": "gpu:a100:1"}}, 1),
        ({"sbatch": {"gpus-per-task": "h100:1"}}, 1),
        ({"sbatch": {"gres": "shard:1"}}, 0),
        ({"sbatch": {"gpus": 0}}, 0),
        ({}, 0),
    ],
)
def test_a_typed_request_is_a_request(resources, gpus):
    assert Resources.parse(resources).gpus_requested == gpus
