"""The shell command that makes a run again, from its frozen spec alone."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

_NOT_IN_YAML = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""What YAML takes only as an escape, line breaks of Unicode among it."""


def run_command(spec: Mapping[str, Any]) -> str:
    """`subnetbench run ...` with every field of the spec written out, so that it means the same run id.

    `spec` is what `RunSpec.model_dump(mode="json")` gives. Raises `KeyError` or `TypeError` for anything else.
    """
    words = ["subnetbench", "run", str(spec["method"]), str(spec["dataset"]), "--task", str(spec["task"])]
    words += ["--seed", str(spec["seed"])]
    for option, fields in (("--set", spec["config"]), ("--data", spec["data"])):
        for name, value in fields.items():
            words += [option, f"{name}={_yaml(value)}"]
    compute = {"processes": 1, "threads": 1, "device": "auto", "precision": "fp32"}
    for name, default in compute.items():
        value = spec["compute"].get(name, default)
        if value != default:
            words += [f"--{name}", str(value)]
    for role, value in spec.get("inputs", {}).items():
        inputs = [_input(item) for item in value] if isinstance(value, list) else _input(value)
        words += ["--input", f"{role}={_yaml(inputs)}"]
    return shlex.join(words)


def command_of(spec_json: str) -> str:
    """The command for the spec that a record holds; empty where the record holds none that can be read."""
    try:
        spec = json.loads(spec_json)
        return run_command(spec)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _input(value: Mapping[str, Any]) -> dict[str, object]:
    """An input as `--input` takes it: without the spec's version, and without what is not given."""
    if "method" not in value:
        name = "run" if value.get("run") else "file"
        return {name: value[name]}
    known = {name: value[name] for name in ("method", "dataset", "task", "config", "data", "seed", "compute")}
    inputs = {
        role: [_input(item) for item in own] if isinstance(own, list) else _input(own)
        for role, own in value.get("inputs", {}).items()
    }
    return {**known, **({"inputs": inputs} if inputs else {})}


def _yaml(value: Any) -> str:
    """JSON that YAML 1.1 reads as the same value."""
    if isinstance(value, float):
        text = json.dumps(value)
        mantissa, mark, exponent = text.partition("e")
        if not mark:
            return text
        # YAML wants a point in the mantissa and a sign in the exponent.
        point = mantissa if "." in mantissa else f"{mantissa}.0"
        return f"{point}e{exponent if exponent[0] in '+-' else '+' + exponent}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(str(key))}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    # Characters beyond 16 bits would become two escapes in JSON, which YAML does not put together again.
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
