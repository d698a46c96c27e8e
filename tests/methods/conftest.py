"""Short runs of retrieval methods in this process."""

import pytest

from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.testing.short_runs import train_here

SHORT = {
    "epochs": 1,
    "batch_size": 16,
    "limit_steps": 3,
    "image_size": 16,
    "dim": 16,
    "capacities": [0.6, 0.3],
    "recalibration_images": 32,
}


@pytest.fixture(scope="session")
def short_spec():
    """Make the spec of a run of a few steps on the embedded emoji; keywords replace config fields."""

    def make(name, *, processes=1, **config):
        return resolve(name, "emoji", config={**SHORT, **config}, compute={"device": "cpu", "processes": processes})

    return make


@pytest.fixture
def short_run(tmp_path, short_spec):
    """Train such a run in this process: a context manager of (method, modules, context)."""

    def run(name, **config):
        spec = short_spec(name, **config)
        return train_here(spec, tmp_path / spec.run_id, inputs=tmp_path)

    return run


@pytest.fixture(scope="session")
def inputs_folder(tmp_path_factory):
    """Where the runs that other runs start from are trained, once for all tests."""
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture
def run_of(tmp_path, inputs_folder):
    """Train a run with inputs in this process: a context manager of (method, modules, context)."""

    def run(name, config, *, inputs=None, seed=0, task=None, data=None, **options):
        compute = {"device": "cpu"}
        spec = resolve(name, "emoji", config=config, inputs=inputs, seed=seed, task=task, data=data, compute=compute)
        for each in spec.dependencies():
            assert execute(each, inputs_folder, RunSettings(trackers=())) == "finished"
        return train_here(spec, tmp_path / options.pop("folder", "run"), inputs=inputs_folder, **options)

    return run
