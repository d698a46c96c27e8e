"""Gathers what a run stands on, once, at its start."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from subnetbench.harness.core import environment
from subnetbench.harness.core.hashing import SHORT_DIGITS
from subnetbench.harness.data.described import Contents
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.distributed.world import World
from subnetbench.harness.method.base import Method
from subnetbench.harness.method.context import Inputs
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.runs.code import read_code
from subnetbench.harness.runs.contents import content_digest, content_digests
from subnetbench.harness.runs.provenance import CodeRead, Environment, FilesRead, InputContent, Provenance
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.training.trained_run import TrainedRun


def stores(data_root: Path, results: Path) -> tuple[Path, ...]:
    """Where digests of image files are kept: with the data, else with the results."""
    return data_root, results / "cache"


def gather(spec: RunSpec, contents: Contents, world: World, inputs: Inputs, data_root: Path) -> Provenance:
    """What a run stands on, as this process finds it now.

    Args:
        spec: The run.
        contents: What its data hold.
        world: Its processes, set up.
        inputs: The runs that it starts from, opened.
        data_root: The folder that paths of the data set's config are relative to.

    Raises:
        DataError: A file cannot be read.
    """
    named, installed = files_of(spec, data_root)
    return Provenance(
        data=contents.content,
        files=FilesRead(
            files=named,
            installed=installed,
            inputs={role: input_content(given) for role, given in _by_role(inputs)},
        ),
        code=code_of(spec),
        numerics=world.numerics(spec.config.get("micro_batch_size")),
        environment=read_environment(world.device),
    )


def files_of(spec: RunSpec, data_root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of the files that config fields of a run name, and of those of libraries, as far as they exist.

    Raises:
        DataError: A file cannot be read.
    """
    config = get_method(spec.method).Config.parse(spec.config)
    of_data = get_dataset(spec.dataset).Config.parse(spec.data, where="data").files_read()
    named = {**config.files_read(), **{f"data.{name}": data_root / path for name, path in of_data.items()}}
    return _digests(named), _digests(config.installed_files())


def with_installed(provenance: Provenance, method: Method[Any]) -> Provenance:
    """The same with the files that libraries have fetched since the run began."""
    if provenance.files is None:
        return provenance
    installed = {**_digests(method.config.installed_files()), **provenance.files.installed}
    return replace(provenance, files=replace(provenance.files, installed=installed))


def _digests(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: digest[:SHORT_DIGITS] for name, digest in content_digests(paths).items()}


def code_of(spec: RunSpec) -> CodeRead:
    """Digests of the source of a run's method, its data set and the program."""
    return read_code(get_method(spec.method), get_dataset(spec.dataset))


def input_content(given: TrainedRun) -> InputContent:
    """What an opened run is, for one that starts from it."""
    weights = content_digest(given.path)[:SHORT_DIGITS]
    return InputContent(given.spec.run_id, weights, given.provenance.lineage)


def _by_role(inputs: Inputs) -> Iterator[tuple[str, Any]]:
    for role, value in inputs.items():
        if isinstance(value, list):
            yield from ((f"{role}[{i}]", item) for i, item in enumerate(value))
        else:
            yield role, value


def read_environment(device: torch.device) -> Environment:
    """The machine, its driver and libraries; CUDA's are those that torch was built with and has loaded."""
    cuda = device.type == "cuda"
    return Environment(
        device=environment.device_name(device),
        cpu=environment.cpu_name(),
        threads=torch.get_num_threads(),
        driver=environment.driver_version() if cuda else "",
        cuda=torch.version.cuda or "" if cuda else "",
        cudnn=environment.cudnn_version() if cuda else "",
        libraries=environment.versions(),
    )


def write_items(contents: Contents, results: Path) -> None:
    """Store the lists of image files, so that a later difference can be named. Raises `SubnetbenchError`."""
    for name, items in contents.items.items():
        items.write(results, contents.content.splits[name].digest)
