"""What a job asks for: the fields that a site profile and a sweep file's `resources:` may set.

Later sections win: profile, profile's `methods`, sweep file, sweep file's `methods`, `defaults`, the run's own entry.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from subnetbench.harness.config import Config
from subnetbench.harness.errors import UserError
from subnetbench.harness.specs import RunSpec

# Directives that the launcher writes itself; another value would break resuming or the search for lost jobs.
_OWN = (
    "array",
    "chdir",
    "dependency",
    "error",
    "input",
    "job-name",
    "kill-on-invalid-dep",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "no-requeue",
    "signal",
    "wrap",
)


def _one_line(text: str) -> str:
    if not text or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("must be one line of printable text")
    return text


Line = Annotated[str, AfterValidator(_one_line)]


class Resources(Config):
    """What one job asks for. GPUs, cores and memory are those of one process (rank) of a run."""

    partition: Annotated[Line | None, Field(description="partition, or several with commas")] = None
    account: Annotated[Line | None, Field(description="account to charge")] = None
    qos: Annotated[Line | None, Field(description="quality of service")] = None
    constraint: Annotated[Line | None, Field(description="node features, e.g. a GPU model")] = None
    gpus: Annotated[int, Field(ge=0, description="GPUs of each process")] = 0
    cpus: Annotated[int | None, Field(ge=1, description="cores of each process; none: the run's threads")] = None
    memory_gb: Annotated[float | None, Field(gt=0, description="memory of each process; none: the site's default")] = (
        None
    )
    nodes: Annotated[int, Field(ge=1, description="nodes that the processes of a run are spread over")] = 1
    minutes: Annotated[int, Field(ge=1, description="time limit of a job; a longer run is queued again")] = 60
    signal_seconds: Annotated[
        int, Field(ge=1, description="how long before the limit a job is told to write its checkpoint")
    ] = 120
    array_parallelism: Annotated[int, Field(ge=1, description="jobs of one array that run at once")] = 256
    runs_per_job: Annotated[int, Field(ge=1, description="single-process runs that a job does in turn")] = 1
    setup: Annotated[tuple[Line, ...], Field(description="shell lines before the program, e.g. module load")] = ()
    python: Annotated[Line | None, Field(description="how to start Python on a node, e.g. in a container")] = None
    sbatch: Annotated[
        dict[str, str | int | float | bool], Field(description="any other sbatch option by its long name")
    ] = Field(default_factory=dict)

    def tasks_per_node(self, processes: int) -> int:
        """Ranks on each node. Raises `UserError` when they cannot be spread evenly."""
        if processes % self.nodes:
            raise UserError(
                f"{processes} processes cannot be spread evenly over {self.nodes} nodes",
                field="resources.nodes",
                value=self.nodes,
            )
        return processes // self.nodes

    def directives(self, processes: int, threads: int) -> dict[str, Any]:
        """Keyword arguments for submitit's batch file, as far as they follow from these fields."""
        tasks = self.tasks_per_node(processes)
        wanted: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": self.nodes,
            "ntasks_per_node": tasks,
            "cpus_per_task": self.cpus or threads,
            "gpus_per_node": self.gpus * tasks or None,
            "mem": None if self.memory_gb is None else f"{round(self.memory_gb * tasks * 1024)}M",
            "time": self.minutes,
            "signal_delay_s": self.signal_seconds,
            "array_parallelism": self.array_parallelism,
        }
        return {name: value for name, value in wanted.items() if value is not None}


class SweepResources(Resources):
    """A `resources:` section of a sweep file: the fields for all runs, and different ones for some methods."""

    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)


def merge(sections: Sequence[tuple[str, Mapping[str, Any]]]) -> Resources:
    """Combine sections (each with the name that errors give it); later ones win, `sbatch` is merged by option.

    Raises `UserError` naming the section and field that cannot be used.
    """
    merged: dict[str, Any] = {}
    for where, section in sections:
        checked = Resources.parse(dict(section), where=where)
        for option in checked.sbatch:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", option) or option in _OWN:
                raise UserError(
                    "cannot be set" if option in _OWN else "is not the long name of an option",
                    field=f"{where}.sbatch.{option}",
                )
        given = {name: getattr(checked, name) for name in section}
        if "sbatch" in given:
            given["sbatch"] = {**merged.get("sbatch", {}), **given["sbatch"]}
        merged |= given
    return Resources.parse(merged, where="resources")


def resources_for(
    spec: RunSpec, profile: SweepResources, sweep: SweepResources, entry: Mapping[str, Any] | None = None
) -> Resources:
    """What the jobs of one run ask for."""
    return merge(
        [
            ("profile", _set_fields(profile)),
            (f"profile.methods.{spec.method}", profile.methods.get(spec.method, {})),
            ("resources", _set_fields(sweep)),
            (f"resources.methods.{spec.method}", sweep.methods.get(spec.method, {})),
            ("runs.resources", entry or {}),
        ]
    )


def _set_fields(section: SweepResources) -> dict[str, Any]:
    names = section.model_fields_set & set(Resources.model_fields)
    return {name: getattr(section, name) for name in names}
