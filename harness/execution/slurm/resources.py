"""What a job requests: the fields that a site profile and a sweep file's `resources:` may set.

Later sections win: profile, profile's `methods`, sweep file, sweep file's `methods`, `defaults`, the run's own entry.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from subnetbench.harness.core.config import Config, OpenFields
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.runs.spec import RunSpec

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

_GPUS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task")


def _one_line(text: str) -> str:
    if not text or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("must be one line of printable text")
    return text


Line = Annotated[str, AfterValidator(_one_line)]


def _gpus(given: int | str) -> int | str:
    model, _, count = str(given).rpartition(":")
    if not re.fullmatch(r"([A-Za-z][\w.-]*)?", model) or not re.fullmatch(r"0|[1-9][0-9]{0,3}", count):
        raise ValueError("must be a number of GPUs, or a model and a number such as a100:2")
    return given


class Resources(Config):
    """What one job requests. GPUs, cores and memory are those of one process (rank) of a run."""

    partition: Annotated[Line | None, Field(description="partition, or several with commas")] = None
    account: Annotated[Line | None, Field(description="account to charge")] = None
    qos: Annotated[Line | None, Field(description="quality of service")] = None
    constraint: Annotated[Line | None, Field(description="node features, e.g. a GPU model")] = None
    gpus: Annotated[
        int | Line,
        AfterValidator(_gpus),
        Field(description="GPUs of each process: a number, or model and number as in a100:2"),
    ] = 0
    cpus: Annotated[int | None, Field(ge=1, description="cores of each process; none: the run's threads")] = None
    memory_gb: Annotated[float | None, Field(gt=0, description="memory of each process; none: the site's default")] = (
        None
    )
    nodes: Annotated[int, Field(ge=1, description="nodes that the processes of a run are spread over")] = 1
    minutes: Annotated[int, Field(ge=1, description="time limit of a job; a longer run is queued again")] = 60
    signal_seconds: Annotated[
        int,
        Field(
            ge=1,
            description="how long before the limit a job gets the signal to write its checkpoint; half of the limit at most",
        ),
    ] = 120
    array_parallelism: Annotated[int, Field(ge=1, description="jobs of one array that run at once")] = 256
    runs_per_job: Annotated[int, Field(ge=1, description="single-process runs that a job does in turn")] = 1
    setup: Annotated[tuple[Line, ...], Field(description="shell lines before the program, e.g. module load")] = ()
    python: Annotated[Line | None, Field(description="how to start Python on a node, e.g. in a container")] = None
    sbatch: Annotated[
        dict[str, str | int | float | bool], Field(description="any other sbatch option by its long name")
    ] = Field(default_factory=dict)

    @property
    def gpu_count(self) -> int:
        """GPUs of each process."""
        return int(str(self.gpus).rpartition(":")[2])

    @property
    def gpu_model(self) -> str:
        """The model that is asked for; empty: any."""
        return str(self.gpus).rpartition(":")[0]

    @property
    def gpus_requested(self) -> int:
        """GPUs of each process: `gpus`, or at least 1 where an sbatch option asks for some in its own way."""
        asked = any(
            re.search(r"[1-9a-zA-Z]", str(value)) and (option != "gres" or "gpu" in str(value))
            for option, value in self.sbatch.items()
            if option in ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task")
        )
        return self.gpu_count or int(asked)

    def tasks_per_node(self, processes: int) -> int:
        """Ranks on each node. Raises `UserError` when they cannot be spread evenly."""
        if processes % self.nodes:
            raise UserError(
                f"{processes} processes cannot be spread evenly over {self.nodes} nodes",
                field="resources.nodes",
                value=self.nodes,
            )
        return processes // self.nodes

    def directives(self, processes: int, threads: int) -> dict[str, str | int]:
        """Keyword arguments for submitit's batch file, as far as they follow from these fields."""
        tasks = self.tasks_per_node(processes)
        gpus = self.gpu_count * tasks
        wanted: dict[str, str | int | None] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": self.nodes,
            "ntasks_per_node": tasks,
            "cpus_per_task": self.cpus or threads,
            "gpus_per_node": (f"{self.gpu_model}:{gpus}" if self.gpu_model else gpus) if gpus else None,
            "mem": None if self.memory_gb is None else f"{round(self.memory_gb * tasks * 1024)}M",
            "time": self.minutes,
            # Half of the time limit at most, or a job would be asked to end as soon as it has begun.
            "signal_delay_s": min(self.signal_seconds, 30 * self.minutes),
            "array_parallelism": self.array_parallelism,
        }
        return {name: value for name, value in wanted.items() if value is not None}


class SweepResources(Resources):
    """A `resources:` section of a sweep file: the fields for all runs, and different ones for some methods."""

    methods: dict[str, OpenFields] = Field(default_factory=dict)


def merge(sections: Sequence[tuple[str, Mapping[str, object]]]) -> Resources:
    """Combine sections (each with the name that errors give it); later ones win, `sbatch` is merged by option.

    Raises `UserError` naming the section and field that cannot be used.
    """
    merged: OpenFields = {}
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
    found = Resources.parse(merged, where="resources")
    if found.gpu_count and (twice := [option for option in found.sbatch if option in _GPUS]):
        raise UserError(
            "GPUs are requested twice, by the field `gpus` too",
            field=f"resources.sbatch.{twice[0]}",
            value=found.sbatch[twice[0]],
            allowed="gpus: a100:1 alone, for a model",
        )
    return found


def resources_for(
    spec: RunSpec, profile: SweepResources, sweep: SweepResources, entry: Mapping[str, object] | None = None
) -> Resources:
    """What the jobs of one run request.

    Raises `UserError` for a section that cannot be used, and for a run whose device does not fit the GPUs of its job.
    """
    found = merge(
        [
            ("profile", _set_fields(profile)),
            (f"profile.methods.{spec.method}", profile.methods.get(spec.method, {})),
            ("resources", _set_fields(sweep)),
            (f"resources.methods.{spec.method}", sweep.methods.get(spec.method, {})),
            ("runs.resources", entry or {}),
        ]
    )
    _check_device(spec, found)
    return found


def _check_device(spec: RunSpec, resources: Resources) -> None:
    device, gpus = spec.compute.device, resources.gpus_requested
    if device == "cuda" and not gpus:
        raise UserError(
            f"{spec.run_id} computes on a GPU (compute.device: cuda), but its job requests none",
            field="resources.gpus",
            value=resources.gpus,
            allowed=">= 1, or compute.device: auto",
        )
    if device == "cpu" and gpus:
        raise UserError(
            f"{spec.run_id} computes on the CPU (compute.device: cpu), but its job requests GPUs",
            field="resources.gpus",
            value=resources.gpus,
            allowed="0, or compute.device: auto",
        )


def _set_fields(section: SweepResources) -> OpenFields:
    names = section.model_fields_set & set(Resources.model_fields)
    return {name: getattr(section, name) for name in names}
