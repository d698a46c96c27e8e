"""Frozen run specs: everything that decides what a run computes, and the content hash that is its id.

A spec is method x data set x config x seed, with the compute settings that bits depend on. Specs are made by
`resolve`, which validates every part and fills in all defaults, so two specs are equal exactly when the runs are.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from subnetbench.harness.config import Config
from subnetbench.harness.errors import UserError
from subnetbench.harness.registry import get_dataset, get_method
from subnetbench.harness.tasks import TASKS, Task

SPEC_VERSION = 1


class Compute(Config):
    """Where and how a run computes. Part of the run's identity, because its bits depend on it."""

    processes: Annotated[int, Field(ge=1, description="ranks of one run (gloo on CPUs, NCCL on GPUs)")] = 1
    threads: Annotated[int, Field(ge=1, description="CPU threads of each process")] = 1
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU when there is one")] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16"], Field(description="bf16: autocast; parameters and optimizers stay float32")
    ] = "fp32"


class InputRef(Config):
    """An input that already exists: a finished run by id, or a weights file by path and content digest."""

    run: str | None = None
    file: str | None = None
    sha256: str | None = None


class RunSpec(Config):
    """One run, completely. `config` and `data` are full: every default is written out."""

    version: int = SPEC_VERSION
    method: str
    dataset: str
    task: Task
    config: dict[str, Any]
    data: dict[str, Any]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    compute: Compute = Compute()
    inputs: dict[str, "RunSpec | InputRef | list[RunSpec | InputRef]"] = Field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """A readable name that ends in the hash of the whole spec."""
        return f"{self.method}-{self.dataset}-s{self.seed}-{content_hash(self.identity())}"

    @property
    def network(self) -> str:
        """What leaderboards call the network: the method's own, else those of its inputs, `student > teacher`.

        Empty where an input is named by id or file, for then its network is not known here.
        """
        try:
            own = get_method(self.method).Config.parse(self.config).network_name()
        except UserError:
            # The failure of a run whose method or config is unknown here must be recorded all the same.
            own = str(self.config.get("network", ""))
        if own:
            return own
        names = [item.network if isinstance(item, RunSpec) else "" for item in self._input_items()]
        return " > ".join(names) if all(names) else ""

    @property
    def config_hash(self) -> str:
        """The hash of all but the seed: runs that differ in nothing else are repetitions of each other."""
        return content_hash(self.recipe())

    def identity(self) -> dict[str, Any]:
        """The spec as plain JSON with each input run replaced by its id."""
        return {**self.model_dump(mode="json"), "inputs": self._inputs_by(lambda spec: spec.run_id)}

    def recipe(self) -> dict[str, Any]:
        """The same without the seed, and with each input run replaced by its method and the hash of its own recipe."""
        inputs = self._inputs_by(lambda spec: f"{spec.method}-{spec.config_hash}")
        plain = {**self.model_dump(mode="json"), "inputs": inputs}
        del plain["seed"]
        return plain

    def _inputs_by(self, name: "Callable[[RunSpec], str]") -> dict[str, Any]:
        return {role: _input_identity(value, name) for role, value in self.inputs.items()}

    def dependencies(self) -> list["RunSpec"]:
        """The runs that must be finished before this one starts, nearest last."""
        specs = [item for item in self._input_items() if isinstance(item, RunSpec)]
        return [spec for item in specs for spec in (*item.dependencies(), item)]

    def _input_items(self) -> "list[RunSpec | InputRef]":
        """All inputs in their order, those of lists one by one."""
        return [item for value in self.inputs.values() for item in (value if isinstance(value, list) else [value])]


def _input_identity(value: "RunSpec | InputRef | list[RunSpec | InputRef]", name: Callable[[RunSpec], str]) -> Any:
    if isinstance(value, list):
        return [_input_identity(item, name) for item in value]
    if isinstance(value, RunSpec):
        return {"run": name(value)}
    # A file is what it contains: moving it does not make another run.
    return {"run": value.run} if value.run else {"sha256": value.sha256}


def content_hash(value: Any, digits: int = 10) -> str:
    """The first hex digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def resolve(
    method: str,
    dataset: str,
    *,
    config: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    task: str | None = None,
    seed: int = 0,
    compute: dict[str, Any] | Compute | None = None,
    inputs: dict[str, Any] | None = None,
) -> RunSpec:
    """Validate the parts of a run and fill in every default.

    `inputs` maps a role that the method declares to a mapping (`{method:, dataset:, config:, seed: follow}`), to
    `{run: ID}` or `{file: PATH}`, or to a list of these. Without an entry, a method's default input is used.
    Raises `UserError` naming the field, the value and what was allowed.
    """
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
    )
    from subnetbench.harness.inputs import resolve_inputs

    return spec.model_copy(update={"inputs": resolve_inputs(method_class, parsed, spec, inputs or {})})


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


def spec_from_json(text: str | bytes) -> RunSpec:
    """A spec that was written by `RunSpec.model_dump_json`; raises `UserError` when it is not one."""
    try:
        plain = json.loads(text)
    except ValueError:
        raise UserError("this is not a run spec: it is not JSON", field="spec") from None
    if not isinstance(plain, dict) or plain.get("version") != SPEC_VERSION:
        version = plain.get("version") if isinstance(plain, dict) else None
        raise UserError(
            "this version of subnetbench cannot read the run spec",
            field="spec.version",
            value=version,
            allowed=SPEC_VERSION,
        )
    return RunSpec.parse(plain, where="spec")
