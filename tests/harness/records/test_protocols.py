"""Protocols are checked by name for data sets of the package, and contradictions about the same data are faults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subnetbench.harness.core.protocols import PROTOCOLS, is_protocol, protocols_of
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.registry import DATASETS, get_dataset
from subnetbench.harness.records import RunRecord, write_record
from subnetbench.harness.records.read import read_records

MakeRecord = Callable[..., RunRecord]
EMOJI = "groups of unseen concepts"
NEAR = f"{EMOJI}; near-duplicates (cosine above 0.9 at 32 pixels) on one side"
OTHER = "subgroups of unseen concepts"


def test_every_data_set_of_the_package_names_its_protocols() -> None:
    built_in = [entry.name for entry in DATASETS.listing() if entry.origin == "built in"]
    assert {name: set(get_dataset(name).tasks) for name in built_in} == {
        name: set(by_task) for name, by_task in PROTOCOLS.items()
    }


@pytest.mark.parametrize(
    ("dataset", "task", "data"),
    [
        ("digits", "classification", {}),
        *(("emoji", task, {}) for task in ("classification", "retrieval", "text_image")),
        ("emoji", "classification", {"labels": "vendors", "split": "near_duplicates"}),
        ("emoji", "classification", {"labels": "subgroups"}),
    ],
)
def test_data_are_loaded_with_a_protocol_of_theirs(
    dataset: str, task: Task, data: dict[str, Any], tmp_path: Path
) -> None:
    found = get_dataset(dataset)
    protocol = found(found.Config.parse(data), tmp_path).load(task).protocol
    assert is_protocol(dataset, task, protocol)
    assert protocol.startswith(protocols_of(dataset, task))


@pytest.mark.parametrize(
    ("dataset", "task", "name", "known"),
    [
        ("emoji", "classification", NEAR, True),
        ("emoji", "classification", "concept-disjoint", False),
        ("emoji", "classification", f"{EMOJI} and more", False),
        ("flickr30k", "text_image", "1000 drawn images", True),
        ("flickr30k", "text_image", "all drawn images", False),
        (
            "inshop",
            "retrieval",
            "official queries and gallery, class-disjoint from training; validation not held out",
            True,
        ),
        ("a_plug_in", "classification", "mine", True),
    ],
)
def test_a_protocol_is_a_name_with_what_the_config_adds(dataset: str, task: str, name: str, known: bool) -> None:
    assert is_protocol(dataset, task, name) == known


def _read(folder: Path, records: list[RunRecord]) -> tuple[int, list[str]]:
    for record in records:
        write_record(folder, record)
    found = read_records(folder)
    assert found.invalid == len(found.faults)
    assert {fault.field for fault in found.faults} <= {"protocol"}
    return len(found.runs), [fault.allowed for fault in found.faults]


def test_a_name_that_the_data_set_has_not_is_a_fault(make_record: MakeRecord, tmp_path: Path) -> None:
    records = [
        make_record("true"),
        make_record("false", protocol="concept-disjoint", data_digest="d2"),
        make_record("early", protocol="", data_digest="", status="failed"),
        make_record("plug-in", dataset="mine", protocol="concept-disjoint", data_digest="d3"),
    ]
    kept, (allowed,) = _read(tmp_path, records)
    assert kept == 3
    assert allowed.startswith(f"a protocol of emoji: {EMOJI}, or {OTHER}, or vendors")


def test_a_later_version_may_know_other_names(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subnetbench.harness.records.schema.SCHEMA_VERSION", 99)
    assert _read(tmp_path, [make_record("later", protocol="a new one")]) == (1, [])


@pytest.mark.parametrize("dataset", ["emoji", "mine"])
def test_the_protocol_of_most_records_of_the_same_data_is_the_right_one(
    dataset: str, make_record: MakeRecord, tmp_path: Path
) -> None:
    names = [EMOJI, OTHER, EMOJI]
    records = [make_record(f"run{i}", dataset=dataset, protocol=name) for i, name in enumerate(names)]
    records.append(make_record("elsewhere", dataset=dataset, protocol=OTHER, data_digest="d2"))
    assert _read(tmp_path, records) == (3, [f"{EMOJI}, as in 2 records of this data"])


def test_where_no_protocol_has_most_records_all_are_faulty(make_record: MakeRecord, tmp_path: Path) -> None:
    records = [make_record(f"run{i}", protocol=name) for i, name in enumerate([EMOJI, OTHER])]
    kept, allowed = _read(tmp_path, records)
    assert (kept, len(allowed), len(set(allowed))) == (0, 2, 1)
    assert "contradict" in allowed[0]
