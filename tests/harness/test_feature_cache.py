"""Outputs of frozen networks on disk: what a file's name depends on, and broken files."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from subnetbench.harness.context import Context
from subnetbench.harness.data import Preprocessing
from subnetbench.harness.execution import RunSettings, load_data
from subnetbench.harness.feature_cache import cached_outputs, cached_rows, weights_digest
from subnetbench.harness.specs import resolve
from subnetbench.harness.world import open_world


@pytest.fixture
def context(tmp_path):
    spec = resolve("triplet", "emoji", compute={"device": "cpu"})
    world = open_world(spec.compute)
    yield Context(spec=spec, data=load_data(spec, RunSettings().data_root), world=world, cache=tmp_path / "cache")
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


def test_a_network_runs_once_over_a_split(context):
    network, again = Counted().eval(), Counted().eval()
    view = Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
    split = context.data.validation
    first = cached_outputs(context, network, view, split)
    assert torch.equal(cached_outputs(context, again, view, split), first)
    assert (network.calls, again.calls) == (1, 0)
    others = [
        (Counted(2.0).eval(), view, split),
        (Counted().eval(), replace(view, size=16), split),
        (Counted().eval(), view, context.data.test),
    ]
    for arguments in others:
        cached_outputs(context, *arguments)
        assert arguments[0].calls > 0
    assert len(list(context.cache.iterdir())) == 4


def test_rows_of_other_compute_settings_are_not_shared(context):
    calls = []

    def compute():
        calls.append(1)
        return torch.ones(2, 3)

    cached_rows(context, ("x",), compute)
    cached_rows(context, ("x",), compute)
    assert len(calls) == 1
    context.spec = context.spec.model_copy(update={"compute": context.spec.compute.model_copy(update={"threads": 2})})
    cached_rows(context, ("x",), compute)
    assert len(calls) == 2


def test_broken_files_are_written_anew_and_pickles_are_not_loaded(context):
    rows = cached_rows(context, ("x",), lambda: torch.arange(6.0).view(2, 3))
    (file,) = context.cache.iterdir()
    for content in (b"", file.read_bytes()[:50], b"\x80\x04N."):
        file.write_bytes(content)
        assert torch.equal(cached_rows(context, ("x",), lambda: torch.arange(6.0).view(2, 3)), rows)
    assert torch.equal(cached_rows(context, ("x",), lambda: torch.zeros(0)), rows)


def test_nothing_is_written_without_a_folder(context):
    context.cache = None
    assert torch.equal(cached_rows(context, ("x",), lambda: torch.ones(1)), torch.ones(1))


@pytest.mark.parametrize("stride", [0, 1])
def test_networks_with_empty_buffers_have_a_digest(stride):
    """An encoder with all patches masked keeps none, and an empty tensor may have any stride."""
    empty, full = nn.Module(), nn.Module()
    empty.register_buffer("kept", torch.empty(0, dtype=torch.int64).as_strided((0,), (stride,)))
    full.register_buffer("kept", torch.zeros(1, dtype=torch.int64))
    assert weights_digest(empty) != weights_digest(full)
