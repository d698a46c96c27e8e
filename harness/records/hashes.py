"""Whether the hashes in records are those of what they stand for: of configs and of run specs."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.hashing import canonical_json, content_hash, text_hash
from subnetbench.harness.records.columns import Found, Texts

ID_DIGITS = 10
"""Hex digits of the hash at the end of a run id."""
_ALL_DIGITS = 64


def config_faults(runs: pa.Table) -> Iterator[Found]:
    """Records whose `config_hash` does not begin the SHA-256 of their config."""
    if not {"config_hash", "config_json"} <= set(runs.column_names):
        return
    hashes, configs = Texts.of(runs["config_hash"]), Texts.of(runs["config_json"])
    pairs, pair_of_run = np.unique(hashes.codes * len(configs.values) + configs.codes, return_inverse=True)
    wrong: dict[int, tuple[str, str, str]] = {}
    for number, pair in enumerate(pairs):
        code, config = divmod(int(pair), len(configs.values))
        if fault := _config_fault(hashes.values[code], configs.values[config]):
            wrong[number] = fault
    rows = np.flatnonzero(np.isin(pair_of_run, list(wrong)))
    yield Found.each([(int(row), *wrong[int(pair_of_run[row])]) for row in rows])


def _config_fault(recorded: str, config: str) -> tuple[str, str, str] | None:
    # Configs are written as their canonical text, so that there is seldom anything to parse.
    digest = text_hash(config, _ALL_DIGITS)
    if len(recorded) >= ID_DIGITS and digest.startswith(recorded):
        return None
    try:
        digest = text_hash(canonical_json(json.loads(config), strict=False), _ALL_DIGITS)
    except (ValueError, RecursionError):
        return "config_json", config, "JSON"
    if len(recorded) >= ID_DIGITS and digest.startswith(recorded):
        return None
    return "config_hash", recorded, f"the hash of the config, {digest[:ID_DIGITS]}"


def spec_faults(runs: pa.Table) -> Iterator[Found]:
    """Records that name another run than their spec. A spec in another form than this version's is not judged."""
    if not {"run_id", "spec_json", "method", "dataset", "task", "seed"} <= set(runs.column_names):
        return
    specs = Texts.of(runs["spec_json"])
    # What has no version is none of ours: told by the text, which is much faster than parsing all.
    rows = np.flatnonzero(specs.where(lambda text: '"version"' in text))
    digests = {code: text_hash(specs.values[code], ID_DIGITS) for code in np.unique(specs.codes[rows]).tolist()}
    columns = [Texts.of(runs[name]).take(rows) for name in ("run_id", "method", "dataset", "task")]
    seeds = runs["seed"].to_numpy()[rows].tolist()
    faults: list[tuple[int, str, str | float, str]] = []
    for row, run_id, method, dataset, task, seed in zip(rows.tolist(), *columns, seeds, strict=True):
        code = int(specs.codes[row])
        text = specs.values[code]
        # The canonical text of a spec without inputs is what its hash is made of: nothing to parse.
        known = run_id == f"{method}-{dataset}-s{seed}-{digests[code]}" and f'"task":"{task}"' in text
        if not known:
            recorded = {"run_id": run_id, "method": method, "dataset": dataset, "task": task, "seed": seed}
            faults += [(row, *fault) for fault in _spec_faults(text, recorded)]
    yield Found.each(faults)


def _spec_faults(text: str, recorded: dict[str, str | int]) -> Iterator[tuple[str, str | float, str]]:
    try:
        spec = json.loads(text)
        if isinstance(spec, dict) and not _is_run(spec):
            return
        run_id = run_id_of(spec)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield "spec_json", text, "a run spec as JSON"
        return
    evaluated = _is_evaluation(str(recorded["run_id"]), run_id, str(recorded["dataset"]))
    for name in ("method", "dataset", "task", "seed"):
        if spec[name] != recorded[name] and not (evaluated and name == "dataset"):
            yield name, recorded[name], f"{spec[name]}, as in the spec"
    if not str(recorded["run_id"]).endswith(f"-{run_id.rpartition('-')[2]}"):
        yield "run_id", recorded["run_id"], f"an id that ends in the hash of its spec, {run_id}"


def run_id_of(spec: dict[str, Any]) -> str:  # open: a spec as it was stored, of any version
    """The id of the run of a stored spec, as `RunSpec.run_id` makes it.

    Raises:
        KeyError, TypeError, AttributeError: It is not a spec.
    """
    inputs = {role: _identity(value) for role, value in spec["inputs"].items()}
    digest = content_hash({**spec, "inputs": inputs}, ID_DIGITS, strict=False)
    return f"{spec['method']}-{spec['dataset']}-s{spec['seed']}-{digest}"


def evaluation_id(run_id: str, dataset: str, digest: str) -> str:
    """The id under which scores of a finished run on other data, or got in another way, are recorded.

    Args:
        run_id: The run, in whose id it ends.
        dataset: What was evaluated on.
        digest: Tells its evaluations on that data set apart.
    """
    return f"on-{dataset}-{digest}-{run_id}"


def _is_evaluation(name: str, run_id: str, dataset: str) -> bool:
    return name.startswith(f"on-{dataset}-") and name.endswith(f"-{run_id}")


def _is_run(value: dict[str, Any]) -> bool:  # open: a stored spec, or a reference to a run or file
    return "version" in value and "method" in value


def _identity(value: object) -> object:
    if isinstance(value, list):
        return [_identity(item) for item in value]
    if not isinstance(value, dict):
        raise TypeError("an input is a run, a reference, or a list of them")
    if _is_run(value):
        return {"run": run_id_of(value)}
    return {"run": value["run"]} if value.get("run") else {"sha256": value["sha256"]}
