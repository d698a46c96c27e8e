"""Records that cannot be true are left out and named; what may be true stays."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subnetbench.harness import api
from subnetbench.harness.core.metrics import METRICS, known_metric
from subnetbench.harness.core.tasks import TASKS
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.hashes import run_id_of
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.record import STATUSES
from subnetbench.harness.records.schema import RUN_COSTS
from subnetbench.harness.records.validate import Fault
from subnetbench.harness.runs.spec import RunSpec

MakeRecord = Callable[..., RunRecord]
Put = Callable[..., Path]
OLD = Path(__file__).parents[2] / "data" / "version_0_1"
SPECS = sorted(OLD.glob("**/runs/*/spec.json"))
SPEC = json.loads(next(path for path in SPECS if path.parent.name.startswith("edge_popup")).read_text())


def fault_of(folder: Path) -> Fault:
    """The only fault of the records in a folder."""
    (fault,) = read_records(folder).faults
    return fault


def test_what_runs_write_is_valid(sound: MakeRecord, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_record(tmp_path, sound(seed))
    write_record(tmp_path, sound(2, status="failed", scores=(), protocol="", data_digest=""))
    records = read_records(tmp_path)
    assert (len(records.runs), records.invalid, records.faults, records.left_out()) == (3, 0, (), [])


def test_old_records_are_valid() -> None:
    records = read_records(OLD)
    assert (len(records.runs), records.invalid, records.faults) == (8, 0, ())


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.parent.name)
def test_the_id_of_a_stored_spec_is_that_of_the_run(file: Path) -> None:
    assert run_id_of(json.loads(file.read_text())) == file.parent.name


def test_inputs_of_every_kind_count_in_the_id() -> None:
    inputs = {
        "teacher": SPEC,
        "levels": [SPEC, {"run": "dense-emoji-s0-0123456789"}, {"file": "a.safetensors", "sha256": "ab" * 32}],
    }
    spec = RunSpec.model_validate({**SPEC, "inputs": inputs})
    assert run_id_of(spec.model_dump(mode="json")) == spec.run_id


CORRUPTIONS: list[tuple[dict[str, Any], int | None, str, str]] = [
    ({"value": 1.7}, 0, "top1 of full on test", "0 to 1"),
    ({"value": -0.1}, 0, "top1 of full on test", "0 to 1"),
    ({"value": -1e6}, 1, "macs_executed of full", "at least 0"),
    ({"value": 0.0}, 2, "top1 of trivial on test", "above 0"),
    ({"split": "holdout"}, 0, "split", "validation"),
    ({"config_hash": "0123456789"}, None, "config_hash", "hash of the config"),
    ({"config_hash": ""}, None, "config_hash", "hash of the config"),
    ({"config_json": "not JSON"}, None, "config_json", "JSON"),
    ({"config_json": '{"lr":1}'}, None, "config_hash", "hash of the config"),
    ({"run_id": "edge_popup-emoji-s0-0123456789"}, None, "run_id", "the hash of its spec"),
    ({"spec_json": '{"version":1,"method":'}, None, "spec_json", "run spec"),
    ({"spec_json": '{"version":1,"method":"edge_popup"}'}, None, "spec_json", "run spec"),
    ({"method": "aslp"}, None, "method", "edge_popup, as in the spec"),
    ({"dataset": "cifar10"}, None, "dataset", "emoji, as in the spec"),
    ({"seed": 7}, None, "seed", "0, as in the spec"),
    ({"task": "retrieval"}, None, "task", "classification, as in the spec"),
    ({"task": "guessing"}, None, "task", "text_image"),
    ({"protocol": ""}, None, "protocol", "not empty"),
    ({"protocol": "a\x1b[31m"}, None, "protocol", "printable"),
    ({"data_digest": "a\n"}, None, "data_digest", "printable"),
    ({"precision": "fp64"}, None, "precision", "bf16"),
    ({"status": "perfect"}, None, "status", "finished"),
    ({"schema_version": 0}, None, "schema_version", "at least 1"),
    ({"schema_meaning": -1}, None, "schema_meaning", "at least 1"),
    ({"attempt": 0}, None, "attempt", "at least 1"),
    ({"world_size": 0}, None, "world_size", "at least 1"),
    ({"threads": -2}, None, "threads", "at least 1"),
    ({"n_requeue": -1}, None, "n_requeue", "at least 0"),
    ({"wall_seconds": -5.0}, None, "wall_seconds", "at least 0"),
    ({"train_seconds": float("nan")}, None, "train_seconds", "finite"),
    ({"gpu_hours": float("inf")}, None, "gpu_hours", "finite"),
    ({"training_macs": -1.0}, None, "training_macs", "at least 0"),
    ({"steps": float("inf")}, None, "steps", "finite"),
]


@pytest.mark.parametrize(("columns", "row", "field", "allowed"), CORRUPTIONS, ids=lambda value: str(value)[:40])
def test_a_corrupted_field_is_found_and_named(
    put: Put, sound: MakeRecord, tmp_path: Path, columns: dict[str, Any], row: int | None, field: str, allowed: str
) -> None:
    write_record(tmp_path, sound(1))
    record = sound()
    path = put(tmp_path, record, row, **columns)
    records = read_records(tmp_path)
    assert records.runs["seed"].to_pylist() == [1]
    assert records.invalid == 1
    assert records.invalid_files == {path}
    faults = [fault for fault in records.faults if fault.field == field]
    assert faults, records.faults
    assert all(fault.path == path for fault in records.faults)
    assert faults[0].run_id == columns.get("run_id", record.run_id)
    assert any(allowed in fault.allowed for fault in faults)
    (value,) = columns.values()
    assert faults[0].value == value or value != value or field in ("config_hash", "spec_json", "method")


def test_a_record_of_another_writer_needs_no_spec(sound: MakeRecord, tmp_path: Path) -> None:
    for number, spec in enumerate(({}, {"note": "made elsewhere"}, {"version": 7, "flags": []})):
        write_record(tmp_path, sound(run_id=f"own{number}", spec=spec))
    assert read_records(tmp_path).faults == ()


def test_configs_that_are_not_canonical_text_have_the_hash_of_their_value(
    put: Put, sound: MakeRecord, tmp_path: Path
) -> None:
    record = sound()
    put(tmp_path, record, config_json=json.dumps(record.config, indent=2))
    assert read_records(tmp_path).faults == ()


def test_a_metric_that_is_not_known_is_no_fault(make_record: MakeRecord, tmp_path: Path) -> None:
    scores = [Score(metric="own_index", value=-3e9, split="test"), Score(metric="recall_at_k", value=5.0, split="test")]
    write_record(tmp_path, make_record(scores=scores))
    assert read_records(tmp_path).faults == ()


def test_rounding_is_no_fault(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, make_record(scores=[Score(metric="top1", value=1 + 1e-7, split="test")]))
    assert read_records(tmp_path).faults == ()
    write_record(tmp_path, make_record("b", scores=[Score(metric="top1", value=1 + 1e-5, split="test")]))
    assert fault_of(tmp_path).field == "top1 on test"


def _stating(make_record: MakeRecord, folder: Path, values: list[float], **changes: Any) -> None:
    task = changes.get("task", "classification")
    metric = "recall_at_1" if task == "retrieval" else "top1"
    for value in values:
        number = len(list(folder.glob("records/*")))
        trivial = Score(metric=metric, value=value, split="test", variant="trivial")
        write_record(folder, make_record(f"run{number}", scores=[trivial], **changes))


def test_a_trivial_baseline_belongs_to_the_data(make_record: MakeRecord, tmp_path: Path) -> None:
    _stating(make_record, tmp_path, [0.1, 0.1, 0.02])
    _stating(make_record, tmp_path, [0.3, 0.3], data_digest="d2")
    fault = fault_of(tmp_path)
    assert (fault.run_id, fault.field, fault.value) == ("run2", "top1 of trivial on test", 0.02)
    assert fault.allowed == "0.1, as in 2 records of this data"
    assert len(read_records(tmp_path).runs) == 4


def test_an_impossible_baseline_has_no_vote(make_record: MakeRecord, tmp_path: Path) -> None:
    _stating(make_record, tmp_path, [0.1, 0.0, 0.0, 1.7, 1.7])
    records = read_records(tmp_path)
    assert records.runs["run_id"].to_pylist() == ["run0"]
    assert [fault.value for fault in records.faults] == [0.0, 0.0, 1.7, 1.7]


def test_where_no_value_has_most_records_none_is_trusted(make_record: MakeRecord, tmp_path: Path) -> None:
    _stating(make_record, tmp_path, [0.1, 0.1, 0.02, 0.02])
    records = read_records(tmp_path)
    assert (len(records.runs), records.invalid, len(records.faults)) == (0, 4, 4)
    assert all("contradict" in fault.allowed for fault in records.faults)


def test_pixels_may_be_ranked_a_little_differently(make_record: MakeRecord, tmp_path: Path) -> None:
    _stating(make_record, tmp_path, [0.508, 0.51, 0.508], task="retrieval")
    assert read_records(tmp_path).faults == ()
    _stating(make_record, tmp_path, [0.4], task="retrieval")
    assert fault_of(tmp_path).value == 0.4


def test_raw_pixels_may_find_nothing_but_no_answer_is_always_wrong(make_record: MakeRecord, tmp_path: Path) -> None:
    _stating(make_record, tmp_path, [0.0], task="retrieval")
    assert read_records(tmp_path).faults == ()
    _stating(make_record, tmp_path, [0.0])
    assert "above 0" in fault_of(tmp_path).allowed


def test_a_folder_without_records_is_not_valid(tmp_path: Path) -> None:
    checked = api.validate(tmp_path)
    assert (checked.records, checked.exit_status) == (0, 1)
    assert checked.faults[0].field == "records"


def test_a_submission_is_checked_against_the_board(make_record: MakeRecord, tmp_path: Path) -> None:
    _stating(make_record, tmp_path / "board", [0.1, 0.1])
    _stating(make_record, tmp_path / "submission", [0.02])
    assert api.validate(tmp_path / "submission").exit_status == 0
    checked = api.validate([tmp_path / "submission", tmp_path / "board"])
    assert [fault.value for fault in checked.faults] == [0.02]


def test_hostile_texts_are_printed_on_one_plain_line() -> None:
    fault = Fault(path=Path("a\x1b.parquet"), run_id="r\n", field="x\u202e" * 500, value="\x1b[31m" * 99, allowed="b")
    assert str(fault).isprintable()
    assert len(str(fault)) < 400


NAMES = sorted({name.replace("_at_k", "_at_10") for name in METRICS})


@st.composite
def metric_values(draw: st.DrawFn) -> tuple[str, float]:
    """A known metric and a value of its range."""
    name = draw(st.sampled_from(NAMES))
    metric = known_metric(name)
    assert metric is not None
    low, high = max(metric.low, -1e12), min(metric.high, 1e12)
    return name, draw(st.floats(low, high))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(metric_values(), max_size=5),
    task=st.sampled_from(TASKS),
    status=st.sampled_from(STATUSES),
    split=st.sampled_from(["test", "validation", "train", ""]),
    config=st.dictionaries(st.text(max_size=5).filter(lambda key: key != "seed"), st.floats() | st.text(max_size=5)),
    seconds=st.none() | st.floats(0, 1e9),
)
def test_any_record_within_the_ranges_is_valid(
    put: Put, make_record: MakeRecord, tmp_path: Path, values: list[tuple[str, float]], **changes: Any
) -> None:
    split, seconds = changes.pop("split"), changes.pop("seconds")
    scores = [Score(metric=name, value=value, split=split, variant="full") for name, value in values]
    record = make_record(scores=scores, wall_seconds=seconds, **changes)
    path = put(tmp_path, record)
    try:
        records = read_records(path)
        assert (len(records.runs), records.faults, records.skipped) == (1, (), ())
    finally:
        shutil.rmtree(tmp_path / "records")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_corruption_is_found(put: Put, sound: MakeRecord, tmp_path: Path, data: st.DataObject) -> None:
    """One field of a true record gets a value that it cannot have."""
    others = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
    negative = st.integers(-(2**40), -1)
    not_a_cost = st.floats(max_value=-1e-3) | st.sampled_from([float("nan"), float("inf")])
    record = sound()
    wrong: dict[str, st.SearchStrategy[Any]] = {
        "status": others.filter(lambda text: text not in STATUSES),
        "task": others,
        "precision": others.filter(lambda text: text not in ("no", "fp16", "fp32", "bf16")),
        "protocol": st.sampled_from(["", " ", "a\nb", "\x00"]),
        "data_digest": st.sampled_from(["\x00", "\t"]),
        "split": others.filter(lambda text: text not in ("train", "validation", "test")),
        "config_hash": others.filter(lambda text: text != record.config_hash),
        "config_json": others,
        "run_id": others,
        "method": others.filter(lambda text: text != record.method),
        "dataset": others.filter(lambda text: text != record.dataset),
        "seed": st.integers(-5, 10**6).filter(lambda seed: seed != 0),
        **dict.fromkeys(
            ("schema_version", "schema_meaning", "attempt", "world_size", "threads"), negative | st.just(0)
        ),
        "n_requeue": negative,
        "trial": negative,
        **dict.fromkeys(RUN_COSTS, not_a_cost),
    }
    field = data.draw(st.sampled_from([*sorted(wrong), "score"]))
    row = None
    if field == "score":
        field, name = "value", data.draw(st.sampled_from(NAMES))
        metric = known_metric(name)
        assert metric is not None
        outside = [st.sampled_from([float("nan"), float("inf"), float("-inf")])]
        outside += [st.floats(-1e300, metric.low - 1e-3)] if metric.low > -np.inf else []
        outside += [st.floats(metric.high + 1e-3, 1e300)] if metric.high < np.inf else []
        value, row = data.draw(st.one_of(outside)), 0
        record = dataclasses.replace(record, scores=[Score(metric=name, value=0.0, split="test", variant="full")])
    else:
        value = data.draw(wrong[field])
    path = put(tmp_path, record, row, **{field: value})
    try:
        records = read_records(path)
        kept = field == "value" and not np.isfinite(value)
        assert (len(records.runs), records.invalid) == ((1, 0) if kept else (0, 1))
        assert records.not_finite if kept else records.faults
        assert api.validate(path).exit_status == 1
    finally:
        shutil.rmtree(tmp_path / "records")
