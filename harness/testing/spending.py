"""The check that a method's runs record what they spend."""

import json
from typing import Any

from subnetbench.harness.method.base import TrainableMethod
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Ledger
from subnetbench.harness.testing.nonconformance import require
from subnetbench.harness.testing.trials import Trials
from subnetbench.harness.training.spending import Spending

# Open: columns of a record.
Row = dict[str, Any]


def check_records_what_it_spends(trials: Trials) -> None:
    """Records count multiply-accumulates, images and steps: the same when each step is counted, after stops, and images
    and steps also on two ranks. Scores of networks of inputs name the inputs."""
    spec = trials.spec
    rows = _rows(trials.records)
    row = rows[spec.run_id]
    _check_plausible(spec, row, rows)
    if not trials.trains:
        return
    recorded = Spending(int(row["training_macs"]), int(row["images_seen"]), int(row["steps"]), row["energy_joules"])
    _check_equal(trials.straight.spending, recorded, "steps of one stage and shape execute other operations")
    _check_equal(trials.stopped.spending, recorded, "a resumed run counts differently")
    on_two = _rows(trials.two_ranks)[trials.two_ranks_spec.run_id]
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


def _rows(records: RecordSet) -> dict[str, Row]:
    """Records by run id, each with the names of its variants that scores take for an input's."""
    rows = {row["run_id"]: {**row, "of_inputs": set()} for row in records.runs.to_pylist()}
    for line in records.long().to_pylist():
        if line["origin"]:
            rows[line["run_id"]]["of_inputs"].add(line["variant"])
    return rows


def _check_equal(found: Spending, recorded: Spending, fault: str) -> None:
    # Energy is measured, and never the same twice.
    for name in ("macs", "images", "steps"):
        one, other = getattr(recorded, name), getattr(found, name)
        require(one == other, f"{fault}: {name} are {other}, recorded are {one}")
