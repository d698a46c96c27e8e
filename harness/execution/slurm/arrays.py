"""From runs to job arrays: one array for each distinct request, split and packed as the site demands."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from subnetbench.harness.execution.slurm.resources import Resources
from subnetbench.harness.runs.spec import RunSpec


@dataclass(frozen=True)
class JobArray:
    """Jobs that request the same. `jobs[i]` are the runs that task i does in turn; all wait for the runs `after`."""

    resources: Resources
    processes: int
    threads: int
    after: tuple[str, ...]
    jobs: tuple[tuple[RunSpec, ...], ...]

    def run_ids(self) -> list[list[str]]:
        return [[spec.run_id for spec in job] for job in self.jobs]


def group(
    todo: Sequence[RunSpec],
    resources_of: Callable[[RunSpec], Resources],
    coming: Collection[str] = (),
    *,
    largest_array: int | None = None,
    room: int | None = None,
) -> tuple[list[JobArray], list[RunSpec]]:
    """Arrays in an order in which they can be submitted, and the runs for which there is no `room`.

    `todo` has inputs before the runs that start from them; `coming` are ids of runs that earlier jobs will finish.
    Where the site allows fewer jobs than there are (`room`), more single-process runs are packed into each job
    before any run is left out.
    """
    arrays = _arrays(todo, resources_of, coming)
    packing = 1
    while room is not None and sum(len(array.jobs) for array in _packed(arrays, packing)) > room:
        if packing >= len(todo):
            break
        packing *= 2
    arrays = _packed(arrays, packing)
    kept, left_out = _within(arrays, room)
    return [part for array in kept for part in _split(array, largest_array)], left_out


def _arrays(
    todo: Sequence[RunSpec], resources_of: Callable[[RunSpec], Resources], coming: Collection[str]
) -> list[JobArray]:
    expected = {spec.run_id for spec in todo} | set(coming)
    depth: dict[str, int] = {}
    groups: dict[tuple[object, ...], list[RunSpec]] = {}
    requests: dict[tuple[object, ...], JobArray] = {}
    for spec in todo:
        resources = resources_of(spec)
        after = tuple(sorted({each.run_id for each in spec.dependencies()} & expected))
        depth[spec.run_id] = 1 + max((depth.get(run_id, 0) for run_id in after), default=0)
        request = JobArray(resources, spec.compute.processes, spec.compute.threads, after, ())
        # Runs that others wait for have jobs of their own, so that nobody waits longer than needed.
        key = (depth[spec.run_id], resources.model_dump_json(), request.processes, request.threads, after)
        requests.setdefault(key, request)
        groups.setdefault(key, []).append(spec)
    ordered = sorted(groups, key=lambda key: int(str(key[0])))
    return [replace(requests[key], jobs=tuple((spec,) for spec in groups[key])) for key in ordered]


def _packed(arrays: Sequence[JobArray], factor: int) -> list[JobArray]:
    awaited = {run_id for array in arrays for run_id in array.after}
    return [_pack(array, array.resources.runs_per_job * factor, awaited) for array in arrays]


def _pack(array: JobArray, size: int, awaited: Collection[str]) -> JobArray:
    specs = [spec for job in array.jobs for spec in job]
    if array.processes > 1 or size == 1:
        return array
    alone = [(spec,) for spec in specs if spec.run_id in awaited]
    rest = [spec for spec in specs if spec.run_id not in awaited]
    # As many jobs as needed, and runs spread evenly over them.
    count = -(-len(rest) // size)
    return replace(array, jobs=(*alone, *(tuple(rest[i::count]) for i in range(count))))


def _within(arrays: Sequence[JobArray], room: int | None) -> tuple[list[JobArray], list[RunSpec]]:
    if room is None:
        return list(arrays), []
    kept: list[JobArray] = []
    left_out: list[RunSpec] = []
    for array in arrays:
        missing = {spec.run_id for spec in left_out}
        fits = 0 if missing & set(array.after) else max(room, 0)
        room -= len(array.jobs[:fits])
        left_out += [spec for job in array.jobs[fits:] for spec in job]
        if array.jobs[:fits]:
            kept.append(replace(array, jobs=array.jobs[:fits]))
    return kept, left_out


def _split(array: JobArray, largest: int | None) -> list[JobArray]:
    size = largest or len(array.jobs)
    return [replace(array, jobs=array.jobs[i : i + size]) for i in range(0, len(array.jobs), size)]
