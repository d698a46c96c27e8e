"""Shared by the tests of the harness: a small run that takes well under a second to train."""

import pytest

from subnetbench.harness.method.resolve import resolve

TINY = {"network": "conv2", "image_size": 8, "epochs": 2, "batch_size": 64, "limit_steps": 3}


@pytest.fixture
def tiny_spec():
    """Make a spec of a tiny run; keywords replace config fields, `seed`, `processes` and `device`."""

    def make(method="dense", *, seed=0, processes=1, device="cpu", **config):
        compute = {"processes": processes, "device": device}
        return resolve(method, "emoji", config={**TINY, **config}, seed=seed, compute=compute)

    return make
