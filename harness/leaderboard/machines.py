"""On what runs were measured: scores of several machines are averaged, with a note; times of them never are."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subnetbench.harness.leaderboard.codes import Codes, Keys, combine
from subnetbench.harness.records.read import RecordSet

COLUMNS = ("device", "threads", "world_size", "host", "gpu_hours", "versions_json", "provenance_json")
"""What is needed of `RecordSet.runs`."""
_PARTS = {"device": "device", "threads": "threads", "processes": "world_size", "libraries": "versions_json"}
_IN_PROVENANCE = {"processor": "cpu", "driver": "driver", "cuda": "cuda", "cudnn": "cudnn"}
"""Parts that only the provenance of a run tells, and their names in it."""


@dataclass(frozen=True)
class Machines:
    """What measured times depend on besides the run: parts of hardware and software, each as codes (records,)."""

    parts: dict[str, Codes]

    @classmethod
    def of(cls, runs: pa.Table) -> "Machines":
        """The parts of `RecordSet.runs`. Where a run on a GPU does not tell its processor, its host stands for it."""
        parts = {name: Codes.of(runs[column]) for name, column in _PARTS.items()}
        parts |= {name: _in_provenance(runs["provenance_json"], key) for name, key in _IN_PROVENANCE.items()}
        host, processor = Codes.of(runs["host"]), parts["processor"]
        untold = (np.nan_to_num(runs["gpu_hours"].to_numpy()) > 0) & (processor.decode() == "")
        named = np.array([f"of host {name}" if name else "" for name in host.values], object)
        codes = np.where(untold, len(processor.values) + host.codes, processor.codes)
        values, merged = np.unique(np.append(processor.values, named).astype(str), return_inverse=True)
        parts["processor"] = Codes(merged[codes] if len(values) else codes, values.astype(object))
        return cls(parts)

    @cached_property
    def key(self) -> Keys:
        """The same for all runs that agree in all parts."""
        return combine(list(self.parts.values()))

    def several(self, owner: np.ndarray, runs: np.ndarray, owners: int) -> np.ndarray:
        """Which owners (owners,) have runs that differ in any part; run `runs[i]` belongs to owner `owner[i]`."""
        return _differ(self.key.codes[runs], self.key.size, owner, owners)

    def differing(self, owner: np.ndarray, runs: np.ndarray, owners: int) -> dict[str, np.ndarray]:
        """For each part, which owners have runs that differ in it."""
        return {name: _differ(part.codes[runs], len(part.values), owner, owners) for name, part in self.parts.items()}

    def names(self) -> np.ndarray:
        """For each run (records,) its machine in words: device and threads, and what else tells two of them apart."""
        _, example, which = np.unique(self.key.codes, return_index=True, return_inverse=True)
        told = {name: part.decode(example).astype(str) for name, part in self.parts.items()}
        words = [text or "device not known" for text in told.pop("device")]
        words = [
            f"{text}, {n} thread{'' if n == '1' else 's'}" for text, n in zip(words, told.pop("threads"), strict=True)
        ]
        for name, values in told.items():
            texts = _versions(values) if name == "libraries" else [f"{name} {text or 'not known'}" for text in values]
            alike: dict[str, set[str]] = {}
            for word, value in zip(words, values, strict=True):
                alike.setdefault(word, set()).add(value)
            words = [
                f"{word}, {text}" if len(alike[word]) > 1 else word for word, text in zip(words, texts, strict=True)
            ]
        return np.array(words, object)[which]


def with_machines(records: RecordSet) -> RecordSet:
    """The same records, whose runs have the column `machine`: rows of a leaderboard are then kept apart by it."""
    names = pa.array(Machines.of(records.runs).names(), pa.string())
    return replace(records, runs=records.runs.append_column("machine", names.dictionary_encode()))


def named(runs: pa.Table, column: str) -> Codes:
    """A column that `with_machines` adds; without it, no machine has a name."""
    if column in runs.column_names:
        return Codes.of(runs[column])
    return Codes(np.zeros(len(runs), np.int64), np.array([""], object))


def versions_apart(texts: Iterable[str]) -> list[str]:
    """Versions of libraries (JSON by name) in words, of those alone that differ: `torch 2.11 and 2.15`."""
    found: dict[str, set[str]] = {}
    for plain in map(json.loads, texts):
        for name, version in plain.items():
            found.setdefault(name, set()).add(version)
    return [f"{name} {' and '.join(sorted(each))}" for name, each in sorted(found.items()) if len(each) > 1]


def _versions(texts: np.ndarray) -> list[str]:
    """What tells the libraries of some machines apart, for each of them."""
    plain = [json.loads(text or "{}") for text in texts]
    names = sorted({name for each in plain for name in each})
    apart = [name for name in names if len({each.get(name) for each in plain}) > 1]
    return [", ".join(f"{name} {each.get(name, 'absent')}" for name in apart) for each in plain]


def _differ(codes: np.ndarray, size: int, owner: np.ndarray, owners: int) -> np.ndarray:
    low, high = np.full(owners, size), np.full(owners, -1)
    np.minimum.at(low, owner, codes)
    np.maximum.at(high, owner, codes)
    return np.asarray(high > low)


def _in_provenance(column: pa.ChunkedArray, key: str) -> Codes:
    """A text that the provenance of a run holds, empty where it holds none."""
    whole = Codes.of(column)
    found = pc.extract_regex(pa.array(whole.values, pa.string()), rf'"{key}":"(?P<text>[^"\\]*)"')
    values = pc.fill_null(pc.struct_field(found, "text"), "").dictionary_encode()
    codes = values.indices.to_numpy().astype(np.int64)
    return Codes(codes[whole.codes], np.array(values.dictionary.to_pylist(), object))
