"""The check that a method's runs record what they spend."""

import json
from pathlib import Path
from typing import Any

from subnetbench.harness.execution.local import run_locally
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.base import TrainableMethod
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Ledger
from subnetbench.harness.testing.nonconformance import Nonconformance, require
from subnetbench.harness.testing.short_runs import short_spec, train_here, train_inputs
from subnetbench.harness.training.monitor import Interrupted
from subnetbench.harness.training.spending import Spending, every_step_counted

# Open: columns of a record.
Row = dict[str, Any]


def check_records_what_it_spends(name: str, folder: Path) -> None:
    """Records count multiply-accumulates, images and steps: the same when each step is counted, after stops, and images
    and steps also on two ranks. Scores of networks of inputs name the inputs."""
    spec = short_spec(name)
    train_inputs(spec, folder)
    execute(spec, folder, RunSettings(trackers=()))
    rows = _rows(folder)
    row = rows[spec.run_id]
    _check_plausible(spec, row, rows)
    if not issubclass(get_method(name), TrainableMethod):
        return
    recorded = Spending(int(row["training_macs"]), int(row["images_seen"]), int(row["steps"]), row["energy_joules"])
    with every_step_counted():
        _check_equal(
            _trained(spec, folder, "counted"), recorded, "steps of one stage and shape execute other operations"
        )
    _check_equal(_resumed(spec, folder), recorded, "a resumed run counts differently")
    double = short_spec(name, processes=2)
    run_locally(plan_runs([double], folder / "two"), folder / "two", RunSettings(trackers=()), slots=2)
    on_two = _rows(folder / "two")[double.run_id]
    for column in ("images_seen", "steps"):
        require(on_two[column] == row[column], f"{column} is {row[column]:g} on one rank, {on_two[column]:g} on two")
    require(on_two["training_macs"] > 0, "two ranks record no training_macs")


def _check_plausible(spec: RunSpec, row: Row, rows: dict[str, Row]) -> None:
    for column in ("training_macs", "input_training_macs", "images_seen", "steps"):
        require(row[column] is not None, f"the record does not know its {column}")
    if issubclass(get_method(spec.method), TrainableMethod):
        require(row["training_macs"] > 0, "its training executes no multiply-accumulate")
        require(row["images_seen"] >= row["steps"] > 0, f"{row['images_seen']:g} images in {row['steps']:g} steps")
    inputs = {each.run_id for each in spec.dependencies()}
    expected = sum(rows[run_id]["training_macs"] for run_id in inputs)
    require(row["input_training_macs"] == expected, f"input_training_macs is {row['input_training_macs']:g}")
    named = {variant for each in Ledger.from_json(json.loads(row["spent_json"])).inputs for variant in each.variants}
    require(
        named == row["of_inputs"], f"variants of inputs are {sorted(named)}, scores name {sorted(row['of_inputs'])}"
    )


def _rows(folder: Path) -> dict[str, Row]:
    """The records of a folder by run id, each with the names of its variants that scores take for an input's."""
    records = read_records([folder])
    rows = {row["run_id"]: {**row, "of_inputs": set()} for row in records.runs.to_pylist()}
    for line in records.long().to_pylist():
        if line["origin"]:
            rows[line["run_id"]]["of_inputs"].add(line["variant"])
    return rows


def _trained(spec: RunSpec, folder: Path, where: str, stop_after: int | None = None) -> Spending:
    spent: list[Spending] = []
    with train_here(spec, folder / where, inputs=folder, stop_after=stop_after, spent=spent):
        return spent[0]


def _resumed(spec: RunSpec, folder: Path) -> Spending:
    for _ in range(200):
        try:
            return _trained(spec, folder, "stopped for spending", 2)
        except Interrupted:
            continue
    raise Nonconformance("it does not come to an end when it is interrupted and resumed")


def _check_equal(found: Spending, recorded: Spending, fault: str) -> None:
    # Energy is measured, and never the same twice.
    for name in ("macs", "images", "steps"):
        one, other = getattr(recorded, name), getattr(found, name)
        require(one == other, f"{fault}: {name} are {other}, recorded are {one}")
