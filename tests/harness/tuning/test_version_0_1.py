"""A study that version 0.1 left is resumed: it is the same study, nothing is run again, its files stay as they were."""

import json
import shutil
from pathlib import Path

import yaml

from subnetbench.harness.tuning.tune import tune
from subnetbench.harness.tuning.tuning_file import TuningFile

OLD = Path(__file__).parents[2] / "data" / "version_0_1"
TABLES = ("trials.csv", "history.csv", "slices.csv")


def search_file():
    """The tuning file in the page beside the results."""
    text = (OLD / "README.md").read_text().split("with this `search.yaml`:")[1]
    return TuningFile.parse(yaml.safe_load(text))


def test_a_finished_study_of_version_0_1_is_complete_and_its_files_stay_as_they_are(tmp_path):
    results = Path(shutil.copytree(OLD / "search", tmp_path / "search"))
    found = tune(search_file(), results=results, trackers=["none"])
    (study,) = found.studies
    assert (found.status, study.completed, len(found.trials)) == ("complete", 3, 3)
    old, new = OLD / "search" / "studies" / "triplet", results / "studies" / "triplet"
    for name in TABLES:
        assert (new / name).read_text() == (old / name).read_text()
    summary = json.loads((new / "summary.json").read_text())
    assert "the budget is 3: this is random search" in summary.pop("notes")[0]  # not in files of version 0.1
    assert summary == json.loads((old / "summary.json").read_text())
    (best,) = study.best
    assert best.values == {"recall_at_1": found.trials["recall_at_1"].max()}
