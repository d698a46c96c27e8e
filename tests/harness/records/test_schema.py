"""The schema says what runs write: its words for precision and errors are those of the code that records runs."""

import ast
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.execution.recording import record_run
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.job_memory import FINAL_REASONS
from subnetbench.harness.records.record import STATUSES
from subnetbench.harness.records.schema import COLUMNS, ERROR_KINDS, PRECISIONS
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import Failure

HARNESS = Path(__file__).parents[3] / "harness"
SPEC = HARNESS.parent / "tests/data/version_0_1/runs/edge_popup-emoji-s0-3b6553708f/spec.json"
HELP = {column.name: column.help for column in COLUMNS}


def spec_of(**compute):
    spec = json.loads(SPEC.read_text())
    return RunSpec.model_validate(spec | {"compute": spec["compute"] | compute})


def written(tmp_path, spec, **result):
    """The first row of the record that a run of this spec leaves."""
    folder = RunFolder(tmp_path, spec.run_id)
    path = record_run(spec, folder, settings=RunSettings(), started=datetime.now(UTC), **result)
    return pq.read_table(path).to_pylist()[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_what_a_run_records(tmp_path, precision):
    row = written(tmp_path, spec_of(precision=precision), status="failed", failure=Failure("nan", "the loss is nan"))
    assert row["precision"] == precision
    assert precision in HELP["precision"]


def test_no_other_precision_can_be_configured():
    allowed = type(spec_of().compute).model_fields["precision"].annotation
    assert set(get_args(allowed)) == set(PRECISIONS)


def test_errors_have_the_words_of_the_schema(tmp_path):
    row = written(tmp_path, spec_of(), status="failed", failure=Failure("out-of-memory", "first\nsecond"))
    assert (row["status"], row["error_kind"], row["error"]) == ("failed", "out-of-memory", "first")
    assert "out-of-memory" in HELP["error_kind"]
    assert row["metric"] == ""
    assert row["value"] is None


def test_statuses_and_tasks_are_listed():
    assert all(status in HELP["status"] for status in STATUSES)
    assert all(task in HELP["task"] for task in PRIMARY_METRIC)


def test_every_reason_in_the_code_is_listed():
    """Reasons are given as `reason="..."`, or first to a function that fails a run."""
    found = set(FINAL_REASONS)
    for file in HARNESS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
                given += node.args[:1] if name in ("fail", "Failure") else []
                given += node.args[1:2] if name in ("_fail", "_write_failure") else []
                found |= {value.value for value in given if isinstance(value, ast.Constant) and value.value}
    assert {"nan", "out-of-memory", "hang"} <= found
    assert found <= set(ERROR_KINDS)
