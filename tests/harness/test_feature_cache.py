"""Outputs of frozen networks on disk: what a file's name depends on, and broken files."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.evaluation.cache import weights_digest
from subnetbench.harness.evaluation.evaluator import Evaluator
from subnetbench.harness.execution.run import load_data
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve


@pytest.fixture
def evaluator(tmp_path):
    spec = resolve("triplet", "emoji", compute={"device": "cpu"})
    world = open_world(spec.compute)
    yield Evaluator(load_data(spec, RunSettings().data_root), world, tmp_path / "cache")
    world.close()


class Counted(nn.Module):
    """A network that counts its forward passes."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.factor * images.mean(dim=(2, 3))


def test_a_network_runs_once_over_a_split(evaluator):
    network, again = Counted().eval(), Counted().eval()
    view = Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
    split = evaluator.data.validation
    first = evaluator.cached_outputs(network, view, split)
    assert torch.equal(evaluator.cached_outputs(again, view, split), first)
    assert (network.calls, again.calls) == (1, 0)
    others = [
        (Counted(2.0).eval(), view, split),
        (Counted().eval(), replace(view, size=16), split),
        (Counted().eval(), view, evaluator.data.test),
    ]
    for arguments in others:
        evaluator.cached_outputs(*arguments)
        assert arguments[0].calls > 0
    assert len(list(evaluator.cache.folder.glob("*.npy"))) == 4


def test_rows_of_other_compute_settings_are_not_shared(evaluator):
    calls = []

    def compute():
        calls.append(1)
        return torch.ones(2, 3)

    evaluator.cached_rows(("x",), compute)
    evaluator.cached_rows(("x",), compute)
    assert len(calls) == 1
    evaluator.world.compute = evaluator.world.compute.model_copy(update={"threads": 2})
    evaluator.cached_rows(("x",), compute)
    assert len(calls) == 2


def test_broken_files_are_written_anew_and_pickles_are_not_loaded(evaluator):
    rows = evaluator.cached_rows(("x",), lambda: torch.arange(6.0).view(2, 3))
    (file,) = evaluator.cache.folder.glob("*.npy")
    for content in (b"", file.read_bytes()[:50], b"\x80\x04N."):
        file.write_bytes(content)
        assert torch.equal(evaluator.cached_rows(("x",), lambda: torch.arange(6.0).view(2, 3)), rows)
    assert torch.equal(evaluator.cached_rows(("x",), lambda: torch.zeros(0)), rows)


def test_nothing_is_written_without_a_folder(evaluator):
    evaluator.cache = None
    assert torch.equal(evaluator.cached_rows(("x",), lambda: torch.ones(1)), torch.ones(1))


@pytest.mark.parametrize("stride", [0, 1])
def test_networks_with_empty_buffers_have_a_digest(stride):
    """An encoder with all patches masked keeps none, and an empty tensor may have any stride."""
    empty, full = nn.Module(), nn.Module()
    empty.register_buffer("kept", torch.empty(0, dtype=torch.int64).as_strided((0,), (stride,)))
    full.register_buffer("kept", torch.zeros(1, dtype=torch.int64))
    assert weights_digest(empty) != weights_digest(full)
