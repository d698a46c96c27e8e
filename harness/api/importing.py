"""Importing weights that another program trained, as a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from subnetbench.harness.api.running import Progress, run
from subnetbench.harness.api.runs import Run
from subnetbench.harness.core.config import OpenFields
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.registry import get_method


def import_(
    file: Path | str,
    dataset: str,
    method: str,
    *,
    config: Mapping[str, Any] | None = None,  # open: fields of the method's config
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    inputs: Mapping[str, Any] | None = None,  # open: see `resolve`
    device: Literal["auto", "cpu", "cuda"] = "auto",
    results: Path | str = "results/runs",
    data_root: Path | str | None = None,
    rerun: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Make a finished run of a file of weights: evaluated on a data set, recorded as imported, never trained.

    The run is one with `weights: FILE` and `epochs: 0`; the digest of the file is part of its id. It is evaluated
    further, teaches, is exported and is a level of cascades like any other. What its training spent is not known.

    Args:
        file: State dictionary of a published program or library, or a folder with a CLIP model. Nothing in it is run.
        dataset: Data set that it is evaluated on.
        method: Method whose networks the file holds.
        config: Fields of its config that the file does not decide; they win over those that it does.
        data: Fields of the data set's config.
        inputs: Runs that it belongs to, by role: the teacher of a distilled head.
        device: `auto`, `cpu` or `cuda`.
        results: Results folder.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        rerun: Import it afresh if its data, file or code are others than they were.
        progress: Follows the run; None: events are logged.

    Returns:
        The run. One that failed, because the file does not fit the network, is returned too: see `message`.

    Raises:
        UserError: The file cannot be read without running code, or a field cannot be used.

    Example:
        >>> import torch
        >>> from subnetbench import import_
        >>> from subnetbench.methods.parts.networks.small import small_network
        >>> torch.save(small_network("conv2", size=32, classes=8).state_dict(), "conv2.pth")
        >>> import_("conv2.pth", "emoji", "dense", config={"network": "conv2"}, results="results/imported").status
        'finished'
    """
    named = _config(Path(file).expanduser().resolve(), method, dict(config or {}))
    return run(method, dataset, config=named, data=data, inputs=inputs, compute={"device": device}, results=results,
               data_root=data_root, rerun=rerun, progress=progress)  # fmt: skip


def _config(path: Path, method: str, given: OpenFields) -> OpenFields:
    """What the file decides, and what the user says."""
    if not path.exists():
        raise UserError("there is no such file", field="FILE", value=str(path))
    if given.get("epochs", 0) != 0 or "weights" in given:
        raise UserError(
            "an import trains nothing: `run --set weights=FILE` trains on", field="config.epochs", allowed=0
        )
    return {**get_method(method).import_config(path), **given}
