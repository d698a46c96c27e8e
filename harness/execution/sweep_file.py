"""Sweep files: YAML that expands to runs.

    name: quickstart
    seeds: [0, 1, 2]
    defaults:
      dataset: emoji
      config: {epochs: 8}
    runs:
      - method: dense
      - method: edge_popup
        grid: {config.sparsity: [0.5, 0.8]}

Each entry of `runs` is combined with `defaults` (its own values win), with every point of its `grid`, and with
every seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from subnetbench.harness.core.config import Config, OpenFields
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.written import read_written
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.spec import RunSpec

_SECTIONS = ("config", "data", "compute", "inputs")


class RunEntry(Config):
    """One entry of `runs`, or the `defaults` of all of them."""

    method: str | None = None
    dataset: str | None = None
    task: str | None = None
    config: OpenFields = Field(default_factory=dict)
    data: OpenFields = Field(default_factory=dict)
    compute: OpenFields = Field(default_factory=dict)
    inputs: OpenFields = Field(default_factory=dict)
    resources: Annotated[OpenFields, Field(description="what a job requests on a cluster")] = Field(
        default_factory=dict
    )
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    seeds: list[int] | None = None


class SweepFile(Config):
    """A sweep file as written; `expand` turns it into specs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    description: str = ""
    results: str | None = None
    tuned_by: Annotated[str, Field(description="the search that chose the configs; its rows are marked as tuned")] = ""
    seeds: list[int] = Field(default_factory=lambda: [0])
    slots: Annotated[int, Field(ge=1)] | None = None
    resources: OpenFields = Field(default_factory=dict)
    defaults: RunEntry = Field(default_factory=lambda: RunEntry())
    runs: list[RunEntry]

    def settings(self, common: RunSettings) -> RunSettings:
        """`common` with what runs record of the sweep and of where their configs come from."""
        return replace(common, sweep=self.name, study=self.tuned_by, tuned=bool(self.tuned_by))

    def expand(self) -> list[RunSpec]:
        """All runs in order. Raises `UserError` when there are none, or when two have the same id."""
        return [spec for spec, _ in self.expand_with_resources()]

    def expand_with_resources(self) -> list[tuple[RunSpec, OpenFields]]:
        """All runs in order, each with what its own entry and `defaults` say of its jobs' resources."""
        found: list[tuple[RunSpec, OpenFields]] = []
        seen: dict[str, int] = {}
        for number, entry in enumerate(self.runs):
            for spec in self._expand_entry(entry, f"runs[{number}]"):
                if spec.run_id in seen:
                    raise UserError(
                        f"runs[{seen[spec.run_id]}] and runs[{number}] contain the same run {spec.run_id}",
                        field="runs",
                    )
                seen[spec.run_id] = number
                found.append((spec, {**self.defaults.resources, **entry.resources}))
        if not found:
            raise UserError("the sweep is empty: it expands to no runs", field="runs")
        return found

    def _expand_entry(self, entry: RunEntry, where: str) -> Iterator[RunSpec]:
        merged = {
            "method": entry.method or self.defaults.method,
            "dataset": entry.dataset or self.defaults.dataset,
            "task": entry.task or self.defaults.task,
            **{section: {**getattr(self.defaults, section), **getattr(entry, section)} for section in _SECTIONS},
        }
        for required in ("method", "dataset"):
            if merged[required] is None:
                raise UserError("must be given here or in defaults", field=f"{where}.{required}")
        seeds = entry.seeds or self.defaults.seeds or self.seeds
        if not seeds:
            raise UserError("there are no seeds", field=f"{where}.seeds")
        for point in _grid_points({**self.defaults.grid, **entry.grid}, where):
            for seed in seeds:
                try:
                    yield resolve(**_with_point(merged, point), seed=seed)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None


def read_sweep(path: Path) -> SweepFile:
    """Parse a sweep file. Raises `UserError` naming the field of the first fault."""
    return SweepFile.parse(read_mapping(path, "`name` and `runs`"), where=str(path))


def read_mapping(path: Path, expected: str) -> OpenFields:
    """The mapping in a YAML file; `expected` says in words what it should have held."""
    content = read_written(path)
    if not isinstance(content, Mapping):
        raise UserError(f"must be a mapping with {expected}", field=str(path))
    return dict(content)


def _grid_points(grid: Mapping[str, list[Any]], where: str) -> Iterator[OpenFields]:
    for field, values in grid.items():
        if not values:
            raise UserError("has no values, so the product is empty", field=f"{where}.grid.{field}")
    yield from (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))


def _with_point(merged: OpenFields, point: OpenFields) -> OpenFields:
    """`merged` with dotted fields such as `config.sparsity` or `method` replaced."""
    result = {**merged, **{section: dict(merged[section]) for section in _SECTIONS}}
    for field, value in point.items():
        section, _, rest = field.partition(".")
        if rest and section in _SECTIONS:
            result[section][rest] = value
        elif not rest and section in ("method", "dataset", "task"):
            result[section] = value
        else:
            allowed = "method, dataset, task, config.*, data.*, compute.*"
            raise UserError("cannot be varied", field=f"grid.{field}", allowed=allowed)
    return result
