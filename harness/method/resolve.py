"""From what somebody asks for to a run spec with every default filled in, its inputs included.

An input of a run is a finished run it starts from (a teacher, the levels of a cascade). It is named by the spec of the
run that makes it, by the id of a finished run, or by a weights file. Specs are trained once, before the runs that
need them, and shared by all runs whose input has the same id.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness.core.config import MethodConfig, UserValues
from subnetbench.harness.core.errors import UserError, nearest
from subnetbench.harness.core.hashing import file_digest
from subnetbench.harness.core.tasks import TASKS, Task
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.runs.contents import content_digests
from subnetbench.harness.runs.spec import InputRef, RunSpec
from subnetbench.harness.runs.written_by import is_own_file

if TYPE_CHECKING:
    from subnetbench.harness.method.base import Method

_FIELDS_OF_INPUT = ("method", "dataset", "config", "data", "task", "seed", "compute", "inputs")


def resolve(
    method: str,
    dataset: str,
    *,
    config: UserValues | None = None,
    data: UserValues | None = None,
    task: str | None = None,
    seed: int = 0,
    compute: UserValues | Compute | None = None,
    inputs: UserValues | None = None,
) -> RunSpec:
    """Validate the parts of a run and fill in every default.

    Args:
        method: Name of a registered method.
        dataset: Name of a registered data set.
        config: Fields of the method's config that differ from their defaults.
        data: Fields of the data set's config that differ from their defaults.
        task: One of the tasks that both offer; None: the first.
        seed: Seed of all random streams of the run, at least 0.
        compute: Processes, threads, device and precision.
        inputs: Maps a role that the method declares to a mapping (`{method:, dataset:, config:, seed: follow}`), to
            `{run: ID}` or `{file: PATH}` (or the path alone), or to a list of these. A file that another program wrote
            is imported, `as` the method that the role has by default unless another is named. A role without an entry
            takes the method's default.

    Raises:
        UserError: Names the field, the value and what was allowed.
    """
    for field, value in (("config", config), ("data", data), ("compute", compute), ("inputs", inputs)):
        if value is not None and not isinstance(value, Mapping | Compute):
            raise UserError("must be a mapping", field=field, value=value, allowed="{field: value, ...}")
    method_class, dataset_class = get_method(method), get_dataset(dataset)
    resolved_task = _choose_task(method, method_class.tasks, dataset, dataset_class.tasks, task)
    parsed = method_class.Config.parse(config or {})
    parsed_data = dataset_class.Config.parse(data or {}, where="data")
    if not isinstance(compute, Compute):
        compute = Compute.parse(compute or {}, where="compute")
    spec = RunSpec(
        method=method,
        dataset=dataset,
        task=resolved_task,
        config=parsed.model_dump(mode="json"),
        data=parsed_data.model_dump(mode="json"),
        seed=seed,
        compute=compute,
        files=content_digests(parsed.files_read()),
    )
    return spec.model_copy(update={"inputs": _resolve_inputs(method_class, parsed, spec, inputs or {})})


def network_of(spec: RunSpec) -> str:
    """What leaderboards call the network: the method's own, else those of its inputs, `student > teacher`.

    Empty where an input is named by id or file, for then its network is not known here.
    """
    try:
        own = get_method(spec.method).Config.parse(spec.config).network_name()
    except UserError:
        # The failure of a run whose method or config is unknown here must be recorded all the same.
        own = str(spec.config.get("network", ""))
    if own:
        return own
    names = [network_of(item) if isinstance(item, RunSpec) else "" for item in spec.input_items()]
    return " > ".join(names) if all(names) else ""


def searched_fields_of(spec: RunSpec) -> tuple[str, ...]:
    """The config fields that a search of the method may choose; empty where the method is not known here."""
    try:
        return get_method(spec.method).Config.searched_fields()
    except UserError:
        return ()


def _choose_task(
    method: str, method_tasks: tuple[Task, ...], dataset: str, dataset_tasks: tuple[Task, ...], asked: str | None
) -> Task:
    common = [task for task in method_tasks if task in dataset_tasks]
    if asked is not None and asked not in TASKS:
        raise UserError("no such task", field="task", value=asked, allowed=", ".join(TASKS))
    if asked is None and common:
        return common[0]
    for task in common:
        if task == asked:
            return task
    raise UserError(
        f"method {method!r} is for {' and '.join(method_tasks)}, data set {dataset!r} offers "
        f"{' and '.join(dataset_tasks)}" + (f", and {asked} was asked for" if asked else "")
    )


def _resolve_inputs(
    method: "type[Method[Any]]", config: MethodConfig, spec: RunSpec, given: UserValues
) -> dict[str, RunSpec | InputRef | list[RunSpec | InputRef]]:
    """The inputs of a run by role: what was given, else the method's defaults."""
    defaults = method.default_inputs(config)
    wanted: dict[str, Any] = {**defaults}  # open: parsed item by item below
    for role, value in given.items():
        if role not in wanted:
            guess = nearest(role, wanted)
            hint = f"; did you mean {guess!r}?" if guess else ""
            fault = f"method {method.name!r} has no such input{hint}"
            raise UserError(fault, field=f"inputs.{role}", allowed=", ".join(wanted) or "none")
        wanted[role] = value
    return {
        role: [_resolve_input(item, spec, f"inputs.{role}[{i}]", "") for i, item in enumerate(value)]
        if isinstance(value, list | tuple)
        else _resolve_input(value, spec, f"inputs.{role}", _method_of(defaults[role]))
        for role, value in wanted.items()
    }


def _method_of(default: Any) -> str:
    """The method of a role's default; empty for a list, whose items may be of any."""
    return str(default.get("method", "")) if isinstance(default, Mapping) else ""


def _imported(value: UserValues, path: Path, where: str, usual: str) -> UserValues:
    """The input that a file of another program is: a run of the method that reads it, which trains nothing.

    Args:
        value: What was given: `file`, perhaps `as` and fields of an input.
        path: The file.
        where: How errors call the input.
        usual: The method unless `as` names one; empty: it must.
    """
    method = str(value.get("as", usual))
    if not method:
        raise UserError("was written by another program: which method reads it?", field=f"{where}.as", value=str(path))
    config = {**get_method(method).import_config(path.resolve()), **value.get("config", {})}
    return {
        **{key: given for key, given in value.items() if key not in ("file", "as")},
        "method": method,
        "config": config,
    }


def _resolve_input(value: Any, spec: RunSpec, where: str, usual: str) -> RunSpec | InputRef:
    if isinstance(value, RunSpec | InputRef):
        return value
    if isinstance(value, str):
        value = {"file": value}
    if not isinstance(value, Mapping):
        raise UserError("must be a mapping", field=where, value=value, allowed="{method: ...}, {run: ID}, {file: PATH}")
    if "run" in value:
        return InputRef(run=str(value["run"]))
    if "file" in value:
        path = Path(str(value["file"])).expanduser()
        if not path.exists():
            raise UserError("there is no such file", field=f"{where}.file", value=str(path))
        if not path.is_dir() and "as" not in value and is_own_file(path):
            return InputRef(file=str(path.resolve()), sha256=file_digest(path))
        value = _imported(value, path, where, usual)
    if "method" not in value:
        raise UserError("names neither a method, nor a run, nor a file", field=where, value=dict(value))
    for key in value:
        if key not in _FIELDS_OF_INPUT:
            raise UserError("there is no such field", field=f"{where}.{key}", allowed=", ".join(_FIELDS_OF_INPUT))
    seed = value.get("seed", "follow")
    return resolve(
        value["method"],
        value.get("dataset", spec.dataset),
        config=value.get("config"),
        data=value.get("data", spec.data if value.get("dataset", spec.dataset) == spec.dataset else None),
        task=value.get("task"),
        seed=spec.seed if seed == "follow" else int(seed),
        compute=value.get("compute", spec.compute),
        inputs=value.get("inputs"),
    )
