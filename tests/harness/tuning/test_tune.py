"""`tune` from Python: what it returns where the command line prints."""

import pandas as pd
import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.tuning.tune import tune
from subnetbench.harness.tuning.tuning_file import TuningFile


def test_a_dry_run_describes_the_studies_and_writes_nothing(plugin, tmp_path):
    found = tune("sleeping", "blank", trials=3, config={"mode": "b"}, dry_run=True, results=tmp_path / "out")
    (study,) = found.studies
    assert (found.status, found.path, str(found.budget)) == ("planned", tmp_path / "out", "3 trials")
    assert (study.name, study.method, study.dataset) == ("tune-sleeping-blank.sleeping", "sleeping", "blank")
    assert [dimension.name for dimension in study.space.dimensions] == ["x", "y"]
    assert not found.path.exists()


def test_a_tuning_returns_its_trials_its_best_and_its_final_runs(plugin, tmp_path):
    lines: list[str] = []
    options = {"results": tmp_path, "workers": 1, "trackers": ["none"], "data_root": tmp_path}
    file = TuningFile.parse(
        {
            "name": "t",
            "budget": {"trials": 3},
            "final_seeds": [11, 12],
            "methods": [{"method": "sleeping", "dataset": "blank", "config": {"seconds": 0.0, "epochs": 1}}],
        }
    )
    found = tune(file, progress=lines.append, **options)
    assert (found.name, found.status, found.path, found.driver_job) == ("t", "complete", tmp_path, "")
    assert found.trials["state"].tolist() == ["complete"] * 3
    assert found.trials["study"].unique().tolist() == ["sleeping"]
    (best,) = found.studies[0].best
    assert best.values == {"top1": found.trials["top1"].max()}
    assert best.config == {"seconds": 0.0, "epochs": 1, **best.params} == found.best_config
    assert sorted(found.final_runs.values()) == ["finished"] * 4
    assert [(gain.study, gain.seeds) for gain in found.gains] == [("sleeping", 2)]
    assert sum("complete: top1" in line for line in lines) == 3
    written = pd.read_csv(tmp_path / "studies" / "sleeping" / "trials.csv")
    pd.testing.assert_frame_equal(
        written[["trial", "top1", "x", "y"]], found.trials[["trial", "top1", "x", "y"]], check_dtype=False
    )


def test_a_study_that_finds_nothing_is_incomplete(plugin, tmp_path):
    config = {"seconds": 0.0, "epochs": 1, "breaks": "nan"}
    options = {"results": tmp_path, "workers": 1, "trackers": ["none"], "data_root": tmp_path}
    found = tune(
        "sleeping",
        "blank",
        trials=1,
        config=config,
        space={"y": "fixed", "mode": "fixed", "x": {"choice": [0.5]}},
        **options,
    )
    assert (found.status, found.studies[0].best) == ("incomplete", ())
    assert found.studies[0].stopped is not None
    assert set(found.trials["kind"]) == {"nan"}
    with pytest.raises(UserError, match="no single best config"):
        _ = found.best_config
