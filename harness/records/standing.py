"""Whether what records say of their provenance, libraries and spending can be read, and agrees with their columns.

A record holds these as JSON, and again in short: digests and words by which rows are told apart, and sums. What is written
in one place alone cannot be checked: empty JSON means unknown, as in records of version 1 of the schema.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.digests import code_digest, files_digest
from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.records.columns import Found, Texts

PROVENANCE_VERSION = 1
"""Version of the JSON of a provenance; what a later one means is not judged here."""
STANDING_COLUMNS = ("provenance_json", "versions_json", "spent_json")
DERIVED_TEXTS = ("code_digest", "files_digest", "numerics")
DERIVED_NUMBERS = ("training_macs", "input_training_macs", "images_seen", "steps", "energy_joules")
_OWN_NUMBERS = tuple(name for name in DERIVED_NUMBERS if name != "input_training_macs")

Json = Any
Derived = Mapping[str, str | float | None]
"""What columns must hold, by name."""


def standing_faults(runs: pa.Table) -> Iterator[Found]:
    """Records whose JSON is damaged, or does not give what stands in the columns that are derived from it."""
    readers: dict[str, Callable[[Json], Derived]] = {
        "provenance_json": _of_provenance,
        "versions_json": _of_versions,
        "spent_json": _of_spent,
    }
    for name, read in readers.items():
        if name in runs.column_names:
            yield from _faults_of(runs, name, read)


def _faults_of(runs: pa.Table, name: str, read: Callable[[Json], Derived]) -> Iterator[Found]:
    texts = Texts.of(runs[name])
    found: list[Derived | str] = [_derived(text, read) for text in texts.values]
    broken = np.array([isinstance(each, str) for each in found], bool)
    rows = np.flatnonzero(broken[texts.codes])
    yield Found(rows, [name] * len(rows), texts.take(rows), [str(found[code]) for code in texts.codes[rows].tolist()])
    stated = [each if isinstance(each, Mapping) else {} for each in found]
    for column in dict.fromkeys(column for each in stated for column in each):
        if column in runs.column_names:
            yield _differing(
                runs, texts, column, [(each[column], True) if column in each else (None, False) for each in stated]
            )


def _differing(runs: pa.Table, texts: Texts, column: str, expected: list[tuple[str | float | None, bool]]) -> Found:
    """Records in which a column does not hold what `expected` (values of `texts`) says, where that says anything."""
    judged = np.array([known for _, known in expected], bool)[texts.codes]
    if column in DERIVED_NUMBERS:
        numbers = np.array([np.nan if value is None else value for value, _ in expected], float)[texts.codes]
        held = runs[column].to_numpy()
        same = (numbers == held) | (np.isnan(numbers) & np.isnan(held))
        rows = np.flatnonzero(judged & ~same)
        values: list[Any] = held[rows].tolist()
    else:
        own = Texts.of(runs[column])
        numbering = {value: number for number, value in enumerate(own.values)}
        codes = np.array([numbering.get(str(value), -1) for value, _ in expected])[texts.codes]
        rows = np.flatnonzero(judged & (codes != own.codes))
        values = own.take(rows)
    allowed = [_allowed(expected[code][0]) for code in texts.codes[rows].tolist()]
    return Found(rows, [column] * len(rows), values, allowed)


def _allowed(value: str | float | None) -> str:
    if value is None or value == "":
        return "not known, as what the column is derived from"
    return f"{value if isinstance(value, str) else format(value, '.6g')}, as derived from what the record holds"


def _derived(text: str, read: Callable[[Json], Derived]) -> Derived | str:
    """What columns must hold; a text instead says what is allowed where the JSON is damaged."""
    if not text:
        return {}
    try:
        return read(json.loads(text))
    except _Damaged as fault:
        return str(fault)
    except (ValueError, RecursionError):
        return "JSON"


class _Damaged(Exception):
    """What is allowed where something else stands."""


def _of_versions(plain: Json) -> Derived:
    _demand(_texts(plain), "an object of versions by name")
    return {}


def _of_provenance(plain: Json) -> Derived:
    _demand(isinstance(plain, dict) and _count(plain.get("version"), 1), "an object with the number of its version")
    if plain["version"] > PROVENANCE_VERSION:
        return {}
    for name, (holds, allowed) in _PARTS.items():
        _demand(name not in plain or (isinstance(plain[name], dict) and holds(plain[name])), f"{name}: {allowed}")
    code, files, numerics = (plain.get(name) for name in ("code", "files", "numerics"))
    derived = dict.fromkeys(DERIVED_TEXTS, "")
    if code:
        derived["code_digest"] = code_digest(code["method"], code["dataset"], code["harness"], code.get("resumed", ()))
    if files and "installed" not in files:
        del derived["files_digest"]  # the first of these records made their digest of less
    elif files:
        lineages = {role: given["lineage"] for role, given in files["inputs"].items()}
        derived["files_digest"] = files_digest(files["files"], files["installed"], lineages)
    if numerics:
        computed = Numerics.from_json(numerics)
        derived |= {"numerics": str(computed), "precision": computed.precision}
    return derived


def _of_spent(plain: Json) -> Derived:
    _demand(
        isinstance(plain, dict)
        and _spent(plain.get("own"))
        and isinstance(plain.get("inputs"), list)
        and all(map(_spent, plain["inputs"])),
        "what the run and each of its inputs spent: `own` and `inputs`, numbers not negative",
    )
    inputs = [each.get("training_macs") for each in plain["inputs"]]
    total = None if None in inputs else float(sum(inputs))
    own = {name: plain["own"][name] for name in _OWN_NUMBERS if name in plain["own"]}
    return {**own, "input_training_macs": total}


def _spent(plain: Json) -> bool:
    if not isinstance(plain, dict):
        return False
    numbers = [plain.get(name) for name in (*_OWN_NUMBERS, "train_seconds")]
    lists = [plain.get(name, []) for name in ("inputs", "variants")]
    return (
        all(value is None or _amount(value) for value in numbers)
        and all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists)
        and all(isinstance(plain.get(name, ""), str) for name in ("run_id", "method", "network", "budget", "device"))
    )


def _code(plain: Json) -> bool:
    return (
        _has_texts(plain, "method", "dataset", "harness")
        and _texts(plain.get("modules", {}))
        and isinstance(plain.get("resumed", []), list)
        and all(isinstance(each, str) for each in plain.get("resumed", []))
    )


def _files(plain: Json) -> bool:
    inputs = plain.get("inputs")
    return (
        _texts(plain.get("files"))
        and _texts(plain.get("installed", {}))
        and isinstance(inputs, dict)
        and all(isinstance(each, dict) and _has_texts(each, "run", "weights", "lineage") for each in inputs.values())
    )


def _data(plain: Json) -> bool:
    return all(
        isinstance(each, dict) and _count(each.get("items"), 0) and _has_texts(each, "digest")
        for each in plain.values()
    )


def _numerics(plain: Json) -> bool:
    return (
        {each.name for each in fields(Numerics)} <= set(plain)
        and _has_texts(plain, "device", "autocast", "matmul")
        and all(type(plain[name]) is bool for name in ("convolution_tf32", "deterministic", "benchmark"))
        and _count(plain["processes"], 1)
        and (plain["micro_batch"] is None or _count(plain["micro_batch"], 1))
    )


def _environment(plain: Json) -> bool:
    return (
        _has_texts(plain, "device", "cpu", "driver", "cuda", "cudnn")
        and _count(plain.get("threads"), 1)
        and _texts(plain.get("libraries", {}))
    )


_PARTS: dict[str, tuple[Callable[[Json], bool], str]] = {
    "data": (_data, "number of items and digest of each split"),
    "files": (_files, "digests of files, installed and inputs"),
    "code": (_code, "digests of method, dataset and harness"),
    "numerics": (_numerics, f"all of {', '.join(each.name for each in fields(Numerics))}"),
    "environment": (_environment, "device, cpu, threads, driver, cuda, cudnn"),
}


def _demand(holds: bool, allowed: str) -> None:
    if not holds:
        raise _Damaged(allowed)


def _texts(plain: Json) -> bool:
    return isinstance(plain, dict) and all(isinstance(each, str) for each in plain.values())


def _has_texts(plain: Json, *names: str) -> bool:
    return all(isinstance(plain.get(name), str) for name in names)


def _count(value: Json, least: int) -> bool:
    return type(value) is int and value >= least


def _amount(value: Json) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf
