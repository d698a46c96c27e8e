"""Frozen run specs: everything that decides what a run computes, and the content hash that is its id.

A spec is method x data set x config x seed, with the compute settings that bits depend on. Specs are made by
`method.resolve`, which validates every part and fills in all defaults, so two specs are equal exactly when the runs are.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from subnetbench.harness.core.config import Config, OpenFields
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.hashing import content_hash
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.distributed.compute import Compute

SPEC_VERSION = 1
ID_DIGITS = 10


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
    config: OpenFields
    data: OpenFields
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    compute: Compute = Compute()
    inputs: dict[str, "RunSpec | InputRef | list[RunSpec | InputRef]"] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what the files hold that config fields name, by field. Left out where there are none, so that ids of
    runs without such files are those of versions that did not know this field."""

    @model_serializer(mode="wrap")
    def _without_empty_files(self, serialize: SerializerFunctionWrapHandler) -> OpenFields:
        plain: OpenFields = serialize(self)
        if not self.files:
            plain.pop("files", None)
        return plain

    @property
    def run_id(self) -> str:
        """A readable name that ends in the hash of the whole spec."""
        return f"{self.method}-{self.dataset}-s{self.seed}-{content_hash(self.identity(), ID_DIGITS)}"

    @property
    def config_hash(self) -> str:
        """The hash of all but the seed: runs that differ in nothing else are repetitions of each other."""
        return content_hash(self.recipe(), ID_DIGITS)

    def identity(self) -> OpenFields:
        """The spec as plain JSON with each input run replaced by its id."""
        return {**self.model_dump(mode="json"), "inputs": self._inputs_by(lambda spec: spec.run_id)}

    def recipe(self) -> OpenFields:
        """The same without the seed, and with each input run replaced by its method and the hash of its own recipe."""
        inputs = self._inputs_by(lambda spec: f"{spec.method}-{spec.config_hash}")
        plain = {**self.model_dump(mode="json"), "inputs": inputs}
        del plain["seed"]
        return plain

    def _inputs_by(self, name: "Callable[[RunSpec], str]") -> OpenFields:
        return {role: _input_identity(value, name) for role, value in self.inputs.items()}

    def dependencies(self) -> list["RunSpec"]:
        """The runs that must be finished before this one starts, nearest last."""
        specs = [item for item in self.input_items() if isinstance(item, RunSpec)]
        return [spec for item in specs for spec in (*item.dependencies(), item)]

    def input_items(self) -> "list[RunSpec | InputRef]":
        """All inputs in their order, those of lists one by one."""
        return [item for value in self.inputs.values() for item in (value if isinstance(value, list) else [value])]


def _input_identity(value: "RunSpec | InputRef | list[RunSpec | InputRef]", name: Callable[[RunSpec], str]) -> Any:
    if isinstance(value, list):
        return [_input_identity(item, name) for item in value]
    if isinstance(value, RunSpec):
        return {"run": name(value)}
    # A file is what it contains: moving it does not make another run.
    return {"run": value.run} if value.run else {"sha256": value.sha256}


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
