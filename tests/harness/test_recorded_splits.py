"""What a finished run records: scores on the test and the validation split, costs once, and searched fields."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from subnetbench import evaluate
from subnetbench.harness.execution import run as run_module
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.record import is_trivial

QUIET = RunSettings(trackers=())


class Untouchable:
    """Images that nobody may look at."""

    tensor = None

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getattr__(self, name):
        raise AssertionError(f"the test images were touched: {name}")


def rows_of(folder):
    return read_records([folder]).long().to_pylist()


def scores_on(rows, split):
    found = [row for row in rows if row["split"] == split and row["metric"] and not is_trivial(row["variant"])]
    return {(row["variant"], row["gallery_variant"], row["metric"]): row["value"] for row in found}


@pytest.mark.parametrize("method", ["dense", "supermask"])
def test_a_finished_run_records_the_same_metrics_on_both_splits_and_costs_once(method, tiny_spec, tmp_path):
    spec = tiny_spec(method)
    assert execute(spec, tmp_path, QUIET) == "finished"
    rows = rows_of(tmp_path)
    test, validation = scores_on(rows, "test"), scores_on(rows, "validation")
    assert "top1" in {key[2] for key in test}
    assert test.keys() == validation.keys()
    costs = [(row["variant"], row["metric"]) for row in rows if row["split"] == ""]
    assert len(costs) == len(set(costs))
    assert "latency_ms" in {metric for _, metric in costs}
    assert {row["split"] for row in rows if is_trivial(row["variant"])} == {"test"}
    assert Leaderboard(tmp_path).tally.repeated == 0
    again = evaluate(spec.run_id, split="validation", results=tmp_path).frame
    of_variants = again[again["metric"] == "top1"].set_index("variant")["value"]
    assert {key[0]: value for key, value in validation.items() if key[2] == "top1"} == of_variants.to_dict()


def test_a_trial_never_touches_the_test_split(tiny_spec, tmp_path, monkeypatch):
    load = run_module.load_data

    def guarded(*given):
        data = load(*given)
        return replace(data, test=replace(data.test, images=Untouchable(len(data.test))))

    monkeypatch.setattr(run_module, "load_data", guarded)
    assert execute(tiny_spec(seed=1), tmp_path / "finished", QUIET) == "failed"
    settings = replace(QUIET, split="validation", study="s", trial=0)
    assert execute(tiny_spec(), tmp_path / "trial", settings) == "finished"
    assert {row["split"] for row in rows_of(tmp_path / "trial")} == {"validation", ""}


def test_data_without_validation_images_are_said(tiny_spec, tmp_path, monkeypatch, caplog):
    load = run_module.load_data

    def without(*given):
        data = load(*given)
        return replace(data, validation=data.validation.subset(np.arange(0)))

    monkeypatch.setattr(run_module, "load_data", without)
    with caplog.at_level(logging.WARNING):
        assert execute(tiny_spec(evaluate_every=0, epochs=0), tmp_path, QUIET) == "finished"
    assert {row["split"] for row in rows_of(tmp_path)} == {"test", ""}
    assert "emoji has no validation images: no validation scores are recorded" in caplog.text


def test_records_name_the_fields_that_a_search_may_choose(tiny_spec, tmp_path):
    spec = tiny_spec()
    execute(spec, tmp_path / "run", QUIET)
    execute(spec, tmp_path / "trial", replace(QUIET, searched=("epochs", "lr")))
    (plain,) = {row["searched_fields"] for row in rows_of(tmp_path / "run")}
    (searched,) = {row["searched_fields"] for row in rows_of(tmp_path / "trial")}
    assert "lr" in plain.split(",")
    assert "epochs" not in plain.split(",")
    assert set(searched.split(",")) == {*plain.split(","), "epochs"}
