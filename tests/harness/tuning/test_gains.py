"""Tuned minus default on the test set: seeds that failed are counted and named, never dropped in silence."""

import json
import math
import time

import pandas as pd
import pytest

from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.tuning.final import carry_out, final_runs
from subnetbench.harness.tuning.gains import gains, write_gains

SEEDS = [11, 12, 13]


@pytest.fixture
def final(study, tmp_path):
    """Final runs of a small study; those for which `fails` holds fail."""

    def run(fails, **fields):
        entry = {"enqueue": [{"x": 0.3, "y": 0.01}]}
        done = study(entry=entry, budget={"trials": 2}, final_seeds=SEEDS, **fields)
        launcher = type(done.launcher)(
            tmp_path / "out", RunSettings(), lambda spec: "failed:nan" if fails(spec) else "finished"
        )
        carry_out(final_runs(done.searches), launcher)
        return gains(done.searches, tmp_path / "out")

    return run


def tuned(spec):
    return spec.config["x"] == 0.3


def test_all_seeds(final):
    (gain,) = final(lambda spec: False)
    assert (gain.seeds, gain.default_failed, gain.tuned_failed, gain.failed) == (3, 0, 0, "")


def test_failed_seeds_are_counted_and_named(final, tmp_path):
    found = final(lambda spec: (tuned(spec), spec.seed) in ((True, 12), (False, 13)))
    write_gains(found, tmp_path / "gains.csv")
    (row,) = pd.read_csv(tmp_path / "gains.csv").to_dict("records")
    assert (row["seeds"], row["default_failed"], row["tuned_failed"]) == (1, 1, 1)
    assert row["failed"] == "default 13: nan; tuned 12: nan"


def test_a_study_of_which_every_tuned_run_failed_has_a_row(final):
    (gain,) = final(tuned)
    assert (gain.seeds, gain.default_failed, gain.tuned_failed) == (0, 0, 3)
    assert math.isnan(gain.difference)
    assert gain.failed == "tuned 11: nan; tuned 12: nan; tuned 13: nan"


def test_without_default_rows_there_is_nothing_to_compare(final):
    assert final(lambda spec: False, default_rows=False) == []


def test_runs_that_were_not_started_are_no_failures_of_a_kind(study, tmp_path):
    done = study(budget={"trials": 2}, final_seeds=SEEDS)
    assert gains(done.searches, tmp_path / "out") == []
    search = done.search
    folder = RunFolder(tmp_path / "out", search.spec(search.space.config_of(search.best()[0].params), 11).run_id)
    folder.create("{}")
    folder.failure_file.write_text(json.dumps({"reason": "killed", "message": "", "time": time.time()}))
    (gain,) = gains(done.searches, tmp_path / "out")
    assert gain.failed.startswith("default 11: not run; default 12: not run; default 13: not run; tuned 11: killed; ")
