"""Results of version 0.1 stay readable: records, run folders, weights and the run ids of their specs."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.compare import compare
from subnetbench.harness.records.merge import merge
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.record import is_trivial
from subnetbench.harness.report import render_page, report_content
from subnetbench.harness.runs.spec import RunSpec

OLD = Path(__file__).parents[2] / "data" / "version_0_1"
TRIPLET = "triplet-emoji-s0-104fe53aee"
FAILED = "triplet-emoji-s0-75bcde86c5"
DISTILLATION = "distillation-emoji-s0-7369b73f9a"
SPECS = sorted(OLD.glob("**/runs/*/spec.json"))


@pytest.fixture
def old(tmp_path):
    """A copy: what reads results may write beside them."""
    return Path(shutil.copytree(OLD, tmp_path / "version_0_1"))


def shown(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_record_is_read():
    records = read_records(OLD)
    assert records.skipped == ()
    assert records.duplicates == 0
    statuses = sorted(records.runs["status"].to_pylist())
    assert statuses == ["failed", *["finished"] * 5, "pruned", "pruned"]
    assert set(records.runs["precision"].to_pylist()) == {"fp32"}
    assert len(records.scores) == 78 + 14 + 14 + 29 + 1 + 19 + 1 + 1


def test_the_leaderboard_has_the_recorded_values():
    frame = Leaderboard(OLD).frame(metrics=["top1", "recall_at_1"])
    means = {(row.method, row.variant, row.gallery_variant): row.mean for row in frame.itertuples(index=False)}
    assert means == pytest.approx(
        {
            ("edge_popup", "subnetwork", ""): 0.16625,
            ("triplet", "dense", "dense"): 0.09125,
            ("distillation", "student", "student"): 0.10625,
            ("distillation", "student", "teacher"): 0.045,
            ("distillation", "teacher", "teacher"): 0.09125,
            ("distillation", "teacher_at_student_size", "teacher"): 0.035,
        }
    )
    seeds = frame.set_index("method")["seeds"]
    assert seeds["edge_popup"] == 2
    assert seeds["triplet"] == 1


def test_the_failed_run_says_why():
    (failure,) = Leaderboard(OLD).failures().itertuples()
    assert (failure.run_id, failure.error_kind) == (FAILED, "nan")
    assert failure.error == "the training loss is nan in epoch 1 of stage train"


def test_two_readings_are_compared_as_identical():
    differences = compare(Leaderboard(OLD), Leaderboard(OLD))
    assert set(differences.rows["verdict"]) == {"identical"}
    assert len(differences.rows) == 6
    assert differences.exit_status == 0


def test_a_merged_file_holds_the_same_scores(old, tmp_path):
    merged = merge(old, tmp_path / "all.parquet")
    assert [each.records for each in merged] == [8]
    before, after = Leaderboard(old).frame(), Leaderboard(tmp_path / "all.parquet").frame()
    assert before.drop(columns="run_ids").equals(after.drop(columns="run_ids"))


def test_the_report_shows_runs_curves_and_the_search():
    page = render_page(report_content(OLD))
    assert page.startswith((b"<!doctype html>", b"<!DOCTYPE html>"))
    content = json.loads(shown_content(page))
    (study,) = content["studies"]
    assert study["study"] == "search.triplet"
    assert [trial["status"] for trial in study["trials"]] == ["finished", "pruned", "pruned"]
    assert study["trials"][0]["value"] == 0.255
    assert study["search"]["best"][0]["config"]["lr"] == 1e-06
    triplet = next(run for run in content["runs"] if run["run_id"] == TRIPLET)
    assert triplet["history"]["validation/recall_at_1"] == [[1], [0.21]]
    assert triplet["command"].startswith("subnetbench run triplet emoji --task retrieval --seed 0")


def shown_content(page):
    import base64
    import gzip
    import re

    packed = re.search(rb'id="content"[^>]*>([^<]+)<', page)
    return gzip.decompress(base64.b64decode(packed[1]))


def test_status_of_the_run_folders():
    rows = {row["run"]: row for row in json.loads(shown("status", OLD, "--json"))}
    assert rows[TRIPLET]["state"] == rows[DISTILLATION]["state"] == "finished"
    assert rows[FAILED]["state"] == "failed"
    assert rows[FAILED]["detail"] == "nan: the training loss is nan in epoch 1 of stage train"


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.parent.name)
def test_specs_keep_their_run_ids(file):
    assert RunSpec.model_validate_json(file.read_text()).run_id == file.parent.name


def test_a_finished_run_is_not_run_again(old):
    tiny = ["--set", "batch_size=64", "--set", "limit_steps=2", "--epochs", 1, "--device", "cpu", "--out", old]
    before = sorted(old.rglob("*.parquet"))
    shown("run", "triplet", "emoji", "--set", "network=cnn8-8", "--set", "dim=16", *tiny)
    assert sorted(old.rglob("*.parquet")) == before


@pytest.mark.parametrize("run", [TRIPLET, DISTILLATION])
def test_trained_weights_still_give_the_recorded_scores(old, run):
    records = read_records(old / "records" / f"{run}-1.parquet").scores.to_pylist()
    kind = ("split", "variant", "gallery_variant", "metric")
    recorded = {tuple(score[name] for name in kind): score["value"] for score in records}
    again = json.loads(shown("evaluate", old / "runs" / run, "--json"))
    compared = [score for score in again if score["metric"] == "recall_at_1" and not is_trivial(score["variant"])]
    assert len(compared) == (1 if run == TRIPLET else 4)
    for score in compared:
        assert score["value"] == recorded[tuple(score[name] for name in kind)]
