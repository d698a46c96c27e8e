"""Trials of a study share the teacher that the method makes up, unless they are told to follow their own configs."""

import pytest

from subnetbench.harness.api import tune
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.tuning.shared_inputs import inputs_of
from subnetbench.harness.tuning.tuning_file import StudyEntry

FIXED = {"network": "conv2", "epochs": 3, "teacher_network": "conv4"}


def teacher(entry, **searched):
    inputs = inputs_of(entry, FIXED, searched)
    return resolve("kd", "emoji", config={**FIXED, **searched}, inputs=inputs).inputs["teacher"]


@pytest.mark.parametrize("follow", [False, True])
def test_a_made_up_teacher_follows_the_fixed_fields_alone_unless_told_otherwise(follow):
    entry = StudyEntry(method="kd", dataset="emoji", inputs_follow=follow)
    default, trial = teacher(entry), teacher(entry, lr=0.02)
    assert (default.config["epochs"], default.config["network"], default.config["lr"]) == (3, "conv4", 0.1)
    assert trial.config["lr"] == (0.02 if follow else 0.1)
    assert (trial.run_id == default.run_id) is not follow
    # Without a searched field that it takes over, there is one teacher in any case.
    assert teacher(entry, loss="dist").run_id == default.run_id


def test_a_teacher_that_is_named_stays_the_one_that_is_named():
    named = {"teacher": {"method": "dense", "config": {"network": "conv6"}}}
    entry = StudyEntry(method="kd", dataset="emoji", inputs=named)
    assert teacher(entry, lr=0.02).config["network"] == "conv6"


def test_a_trial_has_only_the_inputs_that_its_config_asks_for():
    entry = StudyEntry(method="distillation", dataset="emoji")
    assert list(inputs_of(entry, {}, {"lr": 0.02})) == ["teacher"]
    assert inputs_of(entry, {}, {"mode": "sym"}) == {}
    assert inputs_of(StudyEntry(method="dense", dataset="emoji"), {}, {"lr": 0.02}) == {}


@pytest.mark.parametrize(
    ("method", "follow", "said"), [("kd", False, True), ("kd", True, False), ("dense", False, False)]
)
def test_the_plan_says_what_trials_share(method, follow, said):
    (study,) = tune(method, "emoji", trials=30, dry_run=True, inputs_follow=follow).studies
    assert any("one for all trials" in note for note in study.notes) is said
