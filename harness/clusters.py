"""Profiles of clusters: `~/.config/subnetbench/clusters/NAME.yaml`, one a site.

A profile holds any field of `Resources`, `methods` with fields for some methods, and what the site allows.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from subnetbench.harness.errors import UserError, unknown
from subnetbench.harness.launchers.slurm.resources import SweepResources
from subnetbench.harness.sweep_file import read_mapping

DEFAULT_NAME = "default"


class Cluster(SweepResources):
    """A site: the resources that its jobs ask for unless a sweep says otherwise, and its limits."""

    max_array_size: Annotated[
        int | None, Field(ge=1, description="tasks in one array; none: what the scheduler says")
    ] = None
    max_jobs: Annotated[int | None, Field(ge=1, description="jobs of a sweep that may be queued at once")] = None
    driver: Annotated[dict[str, Any], Field(description="what jobs that drive a tuning ask for")] = Field(
        default_factory=dict
    )


def profiles_folder() -> Path:
    """`$XDG_CONFIG_HOME/subnetbench/clusters`, by default below `~/.config`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "subnetbench" / "clusters"


def read_cluster(name: str | None) -> Cluster:
    """The profile of a name or file; with None the one called `default`, or no wishes when there is none.

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
