"""Inputs of a run: finished runs it starts from (a teacher, the levels of a cascade).

An input is named by the spec of the run that makes it, by the id of a finished run, or by a weights file. Specs
are trained once, before the runs that need them, and shared by all runs whose input has the same id.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness.config import MethodConfig
from subnetbench.harness.errors import UserError, nearest

if TYPE_CHECKING:
    from subnetbench.harness.method import Method
    from subnetbench.harness.specs import InputRef, RunSpec

_ALLOWED = ("method", "dataset", "config", "data", "task", "seed", "compute", "inputs")


def resolve_inputs(
    method: "type[Method[Any]]", config: MethodConfig, spec: "RunSpec", given: Mapping[str, Any]
) -> "dict[str, RunSpec | InputRef | list[RunSpec | InputRef]]":
    """The inputs of a run by role: what was given, else the method's defaults.

    Raises `UserError` for a role the method does not have, or an input that is not described completely.
    """
    wanted: dict[str, Any] = {**method.default_inputs(config)}
    for role, value in given.items():
        if role not in wanted:
            guess = nearest(role, wanted)
            hint = f"; did you mean {guess!r}?" if guess else ""
            fault = f"method {method.name!r} has no such input{hint}"
            raise UserError(fault, field=f"inputs.{role}", allowed=", ".join(wanted) or "none")
        wanted[role] = value
    return {
        role: [_resolve(item, spec, f"inputs.{role}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, list | tuple)
        else _resolve(value, spec, f"inputs.{role}")
        for role, value in wanted.items()
    }


def _resolve(value: Any, spec: "RunSpec", where: str) -> "RunSpec | InputRef":
    from subnetbench.harness.specs import InputRef, RunSpec, resolve

    if isinstance(value, RunSpec | InputRef):
        return value
    if not isinstance(value, Mapping):
        raise UserError("must be a mapping", field=where, value=value, allowed="{method: ...}, {run: ID}, {file: PATH}")
    if "run" in value:
        return InputRef(run=str(value["run"]))
    if "file" in value:
        path = Path(str(value["file"])).expanduser()
        if not path.is_file():
            raise UserError("there is no such file", field=f"{where}.file", value=str(path))
        return InputRef(file=str(path.resolve()), sha256=file_digest(path))
    if "method" not in value:
        raise UserError("names neither a method, nor a run, nor a file", field=where, value=dict(value))
    for key in value:
        if key not in _ALLOWED:
            raise UserError("there is no such field", field=f"{where}.{key}", allowed=", ".join(_ALLOWED))
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


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
