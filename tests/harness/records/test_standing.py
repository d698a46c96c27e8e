"""Damaged provenance, versions and spending are refused by name, and so is what does not follow from them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.data.content import DataContent, SplitContent
from subnetbench.harness.records import RunRecord, standing, write_record
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs import provenance
from subnetbench.harness.runs.provenance import CodeRead, Environment, FilesRead, InputContent, Provenance
from subnetbench.harness.runs.spent import Ledger, Spent

MakeRecord = Callable[..., RunRecord]
WHOLE = Provenance(
    data=DataContent({"train": SplitContent(800, "d0"), "test": SplitContent(200, "d1")}),
    files=FilesRead({"clip_path": "f0"}, {"weights": "f1"}, {"teacher": InputContent("t", "w0", "l0")}),
    code=CodeRead("c0", "c1", "c2", resumed=("c3",)),
    numerics=Numerics("cuda", "", "high", True, False, True, 2, 16),
    environment=Environment(device="H100", cpu="EPYC", threads=4),
)
LEDGER = Ledger.of(Spent("s", "dense", training_macs=10**18 + 1, images_seen=7, steps=3), [])
TAUGHT = Ledger.of(LEDGER.own, [Ledger.of(Spent("t", training_macs=5), []), Ledger.of(Spent("u", training_macs=6), [])])


def standing_on(whole: Provenance) -> dict[str, Any]:
    precision = {"precision": whole.numerics.precision} if whole.numerics else {}
    return asdict(whole.columns) | precision


def spending(ledger: Ledger) -> dict[str, Any]:
    numbers = {name: getattr(ledger.own, name) for name in ("training_macs", "images_seen", "steps", "energy_joules")}
    numbers["input_training_macs"] = ledger.input_training_macs
    known = {name: None if value is None else float(value) for name, value in numbers.items()}
    return {**known, "spent_json": ledger.to_text()}


def faults(folder: Path, record: RunRecord) -> list[tuple[str, str]]:
    write_record(folder, record)
    return [(fault.field, fault.allowed) for fault in read_records(folder).faults]


def test_the_versions_of_the_json_are_one() -> None:
    assert standing.PROVENANCE_VERSION == provenance.VERSION


@pytest.mark.parametrize(
    "columns",
    [
        {},
        standing_on(WHOLE),
        standing_on(Provenance()),
        standing_on(Provenance(environment=Environment())),
        standing_on(Provenance(files=FilesRead(), code=CodeRead("a", "b", "c"))),
        {"provenance_json": '{"version":2,"code":"in another form"}', "code_digest": "c"},
        {
            "provenance_json": '{"files":{"files":{"a":"b"},"inputs":{}},"version":1}',
            "files_digest": "of an early form",
        },
        {"code_digest": "c", "numerics": "of a writer that says no more"},
        spending(LEDGER),
        spending(TAUGHT),
        spending(Ledger.of(Spent(), [Ledger(Spent("t"))])),
    ],
)
def test_what_runs_write_is_sound(columns: dict[str, Any], make_record: MakeRecord, tmp_path: Path) -> None:
    assert faults(tmp_path, make_record(**columns)) == []


def _changed(part: str, **changes: Any) -> str:
    plain: dict[str, Any] = WHOLE.brief().to_json()
    return json.dumps(plain | {part: plain[part] | changes})


@pytest.mark.parametrize(
    ("column", "text", "allowed"),
    [
        ("provenance_json", "{", "JSON"),
        ("provenance_json", "[" * 10_000, "JSON"),
        ("provenance_json", "[]", "version"),
        ("provenance_json", "{}", "version"),
        ("provenance_json", '{"version":true}', "version"),
        ("provenance_json", '{"version":1,"code":[]}', "code: digests"),
        ("provenance_json", _changed("code", method=7), "code: digests"),
        ("provenance_json", _changed("code", resumed="c3"), "code: digests"),
        ("provenance_json", _changed("data", test={"items": -1, "digest": "d"}), "data: number"),
        ("provenance_json", _changed("files", installed=None), "files: digests"),
        ("provenance_json", _changed("files", inputs={"teacher": {"run": "t"}}), "files: digests"),
        ("provenance_json", _changed("numerics", deterministic="no"), "numerics: all of"),
        ("provenance_json", _changed("numerics", micro_batch=0), "numerics: all of"),
        ("provenance_json", _changed("environment", threads="4"), "environment: device"),
        ("spent_json", "{", "JSON"),
        ("spent_json", "[]", "not negative"),
        ("spent_json", '{"own":{}}', "not negative"),
        ("spent_json", '{"own":{},"inputs":[7]}', "not negative"),
        ("spent_json", '{"own":{"steps":-1},"inputs":[]}', "not negative"),
        ("spent_json", '{"own":{"steps":NaN},"inputs":[]}', "not negative"),
    ],
)
def test_damaged_json_is_named(column: str, text: str, allowed: str, make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(**(standing_on(WHOLE) | {column: text}))
    ((field, said),) = faults(tmp_path, record)
    assert field == column
    assert allowed in said


@pytest.mark.parametrize("versions", [["torch"], {"torch": 2}])
def test_damaged_versions_are_named(versions: Any, make_record: MakeRecord, tmp_path: Path) -> None:
    assert faults(tmp_path, make_record(versions=versions)) == [("versions_json", "an object of versions by name")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("code_digest", value) for value in ("0123456789abcdef", "")),
        *(("files_digest", value) for value in ("none", "")),
        *(("numerics", value) for value in ("cpu, fp32", "")),
        ("precision", "fp32"),
        ("training_macs", 1e9),
        ("images_seen", None),
        ("energy_joules", 0.0),
        ("input_training_macs", 10.0),
    ],
)
def test_what_does_not_follow_is_named(column: str, value: Any, make_record: MakeRecord, tmp_path: Path) -> None:
    right = standing_on(WHOLE) | spending(TAUGHT)
    write_record(tmp_path, make_record("right", **right))
    ((field, allowed),) = faults(tmp_path, make_record("wrong", **(right | {column: value})))
    assert field == column
    expected = right[column]
    assert (
        "not known" if expected is None else f"{expected:.6g}" if isinstance(expected, float) else expected
    ) in allowed


def test_what_a_part_does_not_say_is_unknown_in_its_column(make_record: MakeRecord, tmp_path: Path) -> None:
    columns = standing_on(Provenance(environment=Environment())) | {"code_digest": "0123456789abcdef"}
    ((field, allowed),) = faults(tmp_path, make_record(**columns))
    assert (field, allowed.startswith("not known")) == ("code_digest", True)
