"""Profiles of clusters: `~/.config/subnetbench/clusters/NAME.yaml`, one a site.

A profile holds any field of `Resources`, `methods` with fields for some methods, and what the site allows.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from subnetbench.harness.core.config import OpenFields
from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.core.paths import home
from subnetbench.harness.execution.slurm.resources import SweepResources
from subnetbench.harness.execution.sweep_file import read_mapping

DEFAULT_NAME = "default"


class Cluster(SweepResources):
    """A site: the resources that its jobs request unless a sweep says otherwise, and its limits."""

    max_array_size: Annotated[
        int | None, Field(ge=1, description="tasks in one array; none: what the scheduler says")
    ] = None
    max_jobs: Annotated[int | None, Field(ge=1, description="jobs of a sweep that may be queued at once")] = None
    driver: Annotated[OpenFields, Field(description="what jobs that drive a tuning request")] = Field(
        default_factory=dict
    )


def profiles_folder() -> Path:
    """`$XDG_CONFIG_HOME/subnetbench/clusters`, by default below `~/.config`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or home(Path("/dev/null"), ".config")) / "subnetbench" / "clusters"


def read_cluster(name: str | None) -> Cluster:
    """The profile of a name or file; with None the one called `default`, or an empty one when there is none.

    Raises `UserError` for a profile that does not exist or cannot be used.
    """
    path = profiles_folder() / f"{name or DEFAULT_NAME}.yaml"
    if name and (name.endswith((".yaml", ".yml")) or "/" in name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError("there is no such file", field="--cluster", value=name)
    if not path.is_file():
        if name is None:
            return Cluster()
        error = unknown("cluster profile", name, [each.stem for each in profiles_folder().glob("*.yaml")])
        raise UserError(f"{error}; profiles are in {profiles_folder()}", field="--cluster")
    return Cluster.parse(read_mapping(path, "fields of `resources`"), where=str(path))
