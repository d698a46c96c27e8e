"""Leaving a world relies on private parts of Accelerate; this says which part is gone when a version lacks it."""

import inspect
from importlib.metadata import version

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState

from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.distributed.world import open_world


@pytest.mark.parametrize("singleton", [AcceleratorState, GradientState, PartialState])
def test_singletons_can_be_reset(singleton):
    fault = f"accelerate {version('accelerate')} has no {singleton.__name__}._reset_state: see distributed/accelerate_adapter"
    assert callable(getattr(singleton, "_reset_state", None)), fault


def test_a_reset_may_include_the_process():
    parameters = inspect.signature(AcceleratorState._reset_state).parameters
    assert "reset_partial_state" in parameters, f"accelerate {version('accelerate')} resets in another way"


def test_a_world_follows_another_in_one_process():
    for threads in (1, 2, 1):
        world = open_world(Compute(device="cpu", threads=threads))
        try:
            assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
        finally:
            world.close()
        assert PartialState._shared_state == {}
