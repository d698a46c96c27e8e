"""`compare` as a gate: what vanished or lost seeds to failures fails it, and is named in every format."""

import csv
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from subnetbench import compare as compare_from_python
from subnetbench.harness.cli.app import app
from subnetbench.harness.leaderboard.compare import Differences, Settings, compare
from subnetbench.harness.leaderboard.compare_formats import render
from subnetbench.harness.leaderboard.formats import FORMATS
from subnetbench.harness.records import Score

BEFORE = [0.50, 0.52, 0.51, 0.53, 0.49]
FAILED: dict[str, Any] = {"status": "failed", "error_kind": "error", "error": "went wrong"}
EARLY: dict[str, Any] = {**FAILED, "data_digest": "", "protocol": "", "budget": ""}
"""Failed before it knew its data."""


def _fail(folder: Any, seeds: Any, early: bool = False, **changes: Any) -> None:
    for seed in seeds:
        folder.add(None, seed=seed, **((EARLY if early else FAILED) | changes))


def _compare(a: Any, b: Any, **settings: Any) -> Differences:
    return compare(a.path, b.path, Settings(**settings))


def _missing(differences: Differences) -> pd.Series:
    (line,) = (row for _, row in differences.missing.iterrows())
    return line


def _counts(line: pd.Series) -> tuple[int, ...]:
    return tuple(int(line[name]) for name in ("seeds_a", "failed_a", "seeds_b", "failed_b"))


@pytest.mark.parametrize("spent", [None, 5e8])
def test_failed_seeds_are_of_the_config_that_finished_before_whatever_they_had_spent(
    folder: Any, other_folder: Any, spent: float | None
) -> None:
    folder.seeds(BEFORE, method="broken", training_macs=1e9)
    _fail(other_folder, range(5), method="broken", **({} if spent is None else {"training_macs": spent}))
    line = _missing(_compare(folder, other_folder))
    assert (line["reason"], _counts(line)) == ("all 5 runs failed in b", (5, 0, 0, 5))


def test_seeds_that_do_not_vary_tell_no_difference_that_they_would_have_found(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    other_folder.seeds(BEFORE[:2])
    differences = _compare(folder, other_folder)
    assert np.isnan(differences.rows["detectable"]).all()
    assert "would have found" not in render(differences, "terminal", 300)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_a_method_of_which_all_seeds_fail(folder: Any, other_folder: Any, early: bool, alone: bool) -> None:
    folder.seeds(BEFORE, method="broken")
    _fail(other_folder, range(5), early, method="broken")
    if not alone:
        folder.seeds(BEFORE)
        other_folder.seeds(BEFORE)
    differences = _compare(folder, other_folder)
    assert differences.exit_status == 1
    line = _missing(differences)
    assert (line["method"], line["metric"], line["reason"]) == ("broken", "", "all 5 runs failed in b")
    assert _counts(line) == (5, 0, 0, 5)
    assert len(differences.rows) == (0 if alone else 1)
    allowed = _compare(folder, other_folder, allow_missing=True)
    assert allowed.exit_status == 0
    assert _missing(allowed)["method"] == "broken"
    for found, outcome in ((differences, "this fails the comparison"), (allowed, "allowed")):
        for format in FORMATS:
            text = render(found, format, 300)
            assert "broken" in text
            assert "all 5 runs failed in b" in text
            if format != "csv":
                assert f"Missing in b, or with lost seeds: 1 ({outcome})." in text
                assert "Failed runs of b: 5 (broken on emoji 5)" in text


def test_a_method_whose_config_changed_and_fails(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE, config={"config": {"lr": 0.1}})
    _fail(other_folder, range(5), config={"config": {"lr": 0.2}})
    line = _missing(_compare(folder, other_folder))
    assert line["reason"] == "all 5 runs of other configs failed in b"
    assert _counts(line) == (5, 0, 0, 5)


@pytest.mark.parametrize("early", [False, True])
def test_seeds_that_are_lost_to_failures(folder: Any, other_folder: Any, early: bool) -> None:
    folder.seeds(BEFORE)
    other_folder.seeds([0.51, 0.54])
    _fail(other_folder, (2, 3, 4), early)
    differences = _compare(folder, other_folder)
    (line,) = differences.rows.to_dict("records")
    assert (line["verdict"], line["pairs"], line["lost"]) == ("no difference found", 2, 3)
    assert (line["failed_a"], line["failed_b"]) == (0, 3)
    missing = _missing(differences)
    assert (missing["metric"], missing["reason"]) == ("top1", "3 of 5 seeds lost in b: 3 runs failed")
    assert _counts(missing) == (5, 0, 2, 3)
    assert differences.exit_status == 1
    assert _compare(folder, other_folder, allow_missing=True).exit_status == 0
    for format in FORMATS:
        assert "3 of 5 seeds lost in b: 3 runs failed" in " ".join(render(differences, format, 300).split())


def test_seeds_without_partners_are_lost_where_runs_failed(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    for seed, value in enumerate(BEFORE[:4]):
        other_folder.add(value, seed=100 + seed)
    assert _compare(folder, other_folder).exit_status == 0
    _fail(other_folder, [104])
    line = _missing(_compare(folder, other_folder))
    assert line["reason"] == "1 of 5 seeds lost in b: 1 runs failed"


def test_a_seed_that_failed_is_lost_although_another_was_added(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE[:3])
    other_folder.seeds(BEFORE[:2])
    other_folder.add(0.5, seed=9)
    assert _compare(folder, other_folder).exit_status == 0  # nobody ran seed 2
    _fail(other_folder, [2])
    differences = _compare(folder, other_folder)
    assert (differences.exit_status, int(differences.rows["lost"].sum())) == (1, 1)
    other_folder.add(0.51, seed=2)  # run again
    assert _compare(folder, other_folder).exit_status == 0


def test_scores_that_are_not_finite_are_lost(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    other_folder.seeds([*BEFORE[:3], float("nan"), float("nan")])
    line = _missing(_compare(folder, other_folder))
    assert line["reason"] == "2 of 5 seeds lost in b: no finite value"
    assert _counts(line) == (5, 0, 3, 0)


def test_a_metric_and_a_variant_that_vanished(folder: Any, other_folder: Any) -> None:
    for own, metrics in ((folder, ("top1", "loss")), (other_folder, ("top1",))):
        for seed in range(3):
            scores = [Score(metric=metric, value=0.5, split="test", variant="full") for metric in metrics]
            own.add(seed=seed, scores=scores)
            own.add(seed=seed, method="two", scores=[own.top1(0.5), own.top1(0.5, "small")][: len(metrics)])
    for metric, method in (("loss", "edge_popup"), ("top1", "two")):
        differences = _compare(folder, other_folder, metrics=[metric])
        assert differences.exit_status == 1
        assert method in set(differences.missing["method"])
    reasons = set(_compare(folder, other_folder, metrics=["loss"]).missing["reason"])
    assert "no value of loss in b" in reasons


def test_failures_that_lose_nothing_are_mentioned(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    other_folder.seeds(BEFORE)
    _fail(folder, [7])
    _fail(other_folder, [8, 9], method="new")
    differences = _compare(folder, other_folder)
    assert (differences.exit_status, len(differences.missing)) == (0, 0)
    assert differences.failed[["side", "method", "seeds", "failed"]].to_numpy().tolist() == [
        ["a", "edge_popup", 5, 1],
        ["b", "new", 0, 2],
    ]
    for format in FORMATS:
        assert "new" in render(differences, format)
    text = render(differences, "markdown")
    assert "Failed runs of a: 1 (edge\\_popup on emoji 1)" in text
    assert "Failed runs of b: 2 (new on emoji 2)" in text


def test_a_row_that_a_filter_leaves_out_on_one_side(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    other_folder.seeds([0.1, 0.1, 0.1])
    line = _missing(_compare(folder, other_folder, where="top1 > 0.3"))
    assert line["reason"] == "left out in b by the filter"
    assert _counts(line) == (5, 0, 3, 0)


def test_means_are_over_the_seeds_of_the_difference(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.50, 0.52, 0.51, 0.90])
    other_folder.seeds([0.60, 0.63, 0.61])
    (line,) = (row for _, row in _compare(folder, other_folder).rows.iterrows())
    assert line["a"] == pytest.approx(0.51)
    assert line["a_all_seeds"] == pytest.approx(0.6075)
    assert line["b"] == line["b_all_seeds"]
    assert line["b"] - line["a"] == pytest.approx(line["difference"])
    text = render(_compare(folder, other_folder), "markdown")
    assert "a\\_all\\_seeds" in text
    assert "over the matching seeds alone" in text
    # Without matching seeds, all means are over all seeds.
    for seed in range(2):
        other_folder.add(0.7 + seed / 100, seed=50 + seed, method="welch")
        folder.add(0.6 + seed / 100, seed=seed, method="welch")
    welch = _compare(folder, other_folder, where="method == 'welch'").rows.iloc[0]
    assert welch["b"] - welch["a"] == pytest.approx(welch["difference"])
    assert welch["a"] == welch["a_all_seeds"]


def test_csv_and_json_hold_everything(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    folder.seeds(BEFORE, method="gone")
    other_folder.seeds(BEFORE)
    other_folder.seeds(BEFORE, method="added")
    _fail(other_folder, range(2), method="never")
    differences = _compare(folder, other_folder)
    lines = list(csv.DictReader(io.StringIO(render(differences, "csv"))))
    assert {(line["method"], line["verdict"]) for line in lines} == {
        ("gone", "missing in b"),
        ("edge_popup", "identical"),
        ("added", "only in b"),
        ("never", "no finished run in b"),
    }
    assert not any("nan" in line.values() for line in lines)
    gone = next(line for line in lines if line["method"] == "gone")
    assert (gone["seeds_a"], gone["failed_b"], gone["reason"]) == ("5", "0", "no such row on the other side")
    content = json.loads(render(differences, "json"), parse_constant=pytest.fail)
    assert [line["method"] for line in content["missing"]] == ["gone"]
    assert [line["method"] for line in content["failed"]] == ["never"]
    assert content["exit_status"] == 1


def test_the_command_and_the_function(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    folder.seeds(BEFORE, method="gone")
    other_folder.seeds(np.add(BEFORE, [0.1, 0.11, 0.1, 0.1, 0.1]))
    words = ["compare", str(folder.path), str(other_folder.path)]
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1
    assert "gone" in failed.output
    allowed = CliRunner().invoke(app, [*words, "--allow-missing"])
    assert allowed.exit_code == 0
    assert "gone" in allowed.output
    assert compare_from_python(folder.path, other_folder.path).exit_status == 1
    assert compare_from_python(folder.path, other_folder.path, allow_missing=True).exit_status == 0


def test_runs_of_unknown_data_are_counted_once(folder: Any, other_folder: Any) -> None:
    for seed in range(3):
        folder.add(seed=seed, data_digest="", scores=[folder.top1(0.5), folder.top1(0.5, "small")])
        other_folder.add(seed=seed, data_digest="")
    line = _missing(_compare(folder, other_folder))
    assert (line["variant"], _counts(line)) == ("small", (3, 0, 3, 0))
