"""Entrants over several data sets: who takes part, on what scale, what is refused, and what the command prints."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.formats import FORMATS
from subnetbench.harness.leaderboard.overall_formats import render, tidy
from subnetbench.harness.records import Score

DATASETS = {"emoji": 0.4, "digits": 0.8, "fashion": 0.6}
METHODS = {"dense": 0.1, "aslp": 0.05, "random_mask": 0.0}


def fill(
    folder: Any, datasets: dict[str, float] = DATASETS, methods: dict[str, float] = METHODS, seeds: int = 4
) -> None:
    """Every method on every data set: its gain over the level of the data set, and a little for each seed."""
    for dataset, level in datasets.items():
        for method, gain in methods.items():
            for seed in range(seeds):
                add(folder, level + gain + 0.001 * ((seed * 7 + len(method)) % 5), method, dataset, seed)


def add(folder: Any, value: float | None, method: str, dataset: str, seed: int, **changes: Any) -> None:
    own = {"method": method, "dataset": dataset, "data_digest": f"d-{dataset}", "seed": seed}
    if value is None:
        folder.add(None, **own, status="failed", error_kind="nan", error="loss is nan")
        return
    scores = [
        folder.top1(value),
        Score(metric="items", value=1000.0, split="test", variant="full"),
        Score(metric="loss", value=1 - value, split="test", variant="full"),
        *(Score(metric=m, value=v, split="test", variant="trivial") for m, v in (("top1", 0.2), ("loss", 2.0))),
    ]
    folder.add(**(own | {"scores": scores} | changes))


def test_the_numbers_of_a_clear_case(folder: Any) -> None:
    fill(folder)
    found = Leaderboard(folder.path).aggregate()
    assert found.entrants == ["dense", "aslp", "random_mask"]
    lines = found.summary.set_index("entrant")
    assert lines["mean_rank"].tolist() == [1, 2, 3]
    assert lines["borda"].tolist() == [6, 3, 0]
    assert lines["borda_rank"].tolist() == [1, 2, 3]
    assert lines["profile_score"]["dense"] == 1
    assert (lines["mean_rank_low"] <= lines["mean_rank"]).all()
    assert (lines["mean_rank_high"] >= lines["mean_rank"]).all()
    scores = found.scores.set_index(["entrant", "dataset"])
    value, normalised = scores.loc[("dense", "digits"), ["value", "normalised"]]
    assert normalised == pytest.approx((value - 0.2) / (1 - 0.2))
    assert lines["mean"]["dense"] == pytest.approx(scores.loc["dense"]["normalised"].mean())
    for name in ("mean", "median", "iqm", "optimality_gap"):
        assert (lines[f"{name}_low"] <= lines[name]).all()
        assert (lines[name] <= lines[f"{name}_high"]).all()
    pairs = found.improvement.set_index(["entrant", "against"])["probability"]
    assert pairs["dense", "random_mask"] == 1
    assert pairs["random_mask", "dense"] == 0
    assert "0 is the best trivial baseline of a data set, 1 the best possible value" in " ".join(found.notes)


def test_lower_is_better_turns_nothing_around(folder: Any) -> None:
    """The loss is 1 - top1 here, so every order is the same; its best possible value is 0."""
    fill(folder)
    board = Leaderboard(folder.path)
    by_top1, by_loss = board.aggregate(metrics=["top1"]), board.aggregate(metrics=["loss"])
    assert by_loss.entrants == by_top1.entrants
    assert by_loss.improvement["probability"].tolist() == by_top1.improvement["probability"].tolist()
    line = by_loss.scores.iloc[0]
    assert line["normalised"] == pytest.approx((2.0 - line["value"]) / 2.0)
    assert by_loss.summary["profile_score"].tolist() == pytest.approx(by_top1.summary["profile_score"].tolist())
    raw = board.aggregate(metrics=["loss"], normalise="none")
    assert raw.summary["mean"].tolist() == pytest.approx(
        (-raw.scores.groupby("entrant")["value"].mean()[raw.entrants]).tolist()
    )
    assert any("sign is turned" in note for note in raw.notes)


def test_the_best_entrant_as_the_scale(folder: Any) -> None:
    fill(folder)
    found = Leaderboard(folder.path).aggregate(normalise="best")
    assert found.scores.groupby("dataset")["normalised"].max().tolist() == pytest.approx([1, 1, 1])
    assert any("they depend on who takes part" in note for note in found.notes)


def test_what_is_missing_is_refused_or_said(folder: Any) -> None:
    fill(folder)
    add(folder, 0.5, "lonely", "emoji", 0)
    add(folder, None, "lonely", "digits", 0)
    board = Leaderboard(folder.path)
    with pytest.raises(UserError, match=r"lonely on digits \(1 run failed\).*lonely on fashion.*drop-methods"):
        board.aggregate()
    methods = board.aggregate(missing="drop-methods")
    assert methods.entrants == ["dense", "aslp", "random_mask"]
    assert any(note.startswith("Left out: lonely") for note in methods.notes)
    with pytest.raises(UserError, match="at least two data sets; 1 is left"):
        board.aggregate(missing="drop-datasets")
    add(folder, 0.5, "lonely", "digits", 0)
    datasets = Leaderboard(folder.path).aggregate(missing="drop-datasets")
    assert sorted(datasets.scores["dataset"].unique()) == ["digits", "emoji"]
    assert "lonely" in datasets.entrants


def test_one_seed_and_failed_seeds_are_said(folder: Any) -> None:
    fill(folder)
    for dataset, level in DATASETS.items():
        add(folder, level + 0.15, "lucky", dataset, 0)
        add(folder, None, "lucky", dataset, 1)
    found = Leaderboard(folder.path).aggregate()
    notes = " ".join(found.notes)
    assert "3 runs failed" in notes
    assert "Numbers of seeds differ (1 to 4)" in notes
    assert "No intervals of scores" in notes
    lines = found.summary.set_index("entrant")
    assert np.isnan(lines.loc["dense", "iqm_low"])
    assert (lines.loc["lucky", "seeds"], lines.loc["lucky", "failed"]) == (1, 3)
    # Its value is first, but nothing says where it truly stands, nor whether it is above the others.
    assert lines.loc["lucky", ["mean_rank", "mean_rank_low", "mean_rank_high"]].tolist() == [1, 1, 4]
    assert lines["mean_rank_high"]["dense"] >= 2


def test_values_that_are_not_finite_are_said(folder: Any) -> None:
    fill(folder)
    add(folder, float("nan"), "dense", "emoji", 9)
    assert any(
        re.match(r"\d+ values? (is|are) not finite", note) for note in Leaderboard(folder.path).aggregate().notes
    )


def test_without_a_scale_nothing_is_called_normalised(folder: Any) -> None:
    fill(folder)
    found = Leaderboard(folder.path).aggregate(normalise="none")
    text = render(found)
    assert "Share of runs by score" in text
    assert "(normalised)" not in text
    assert "normalised score" not in text
    assert found.summary["optimality_gap"].to_numpy() == pytest.approx(1 - found.summary["mean"].to_numpy())
    assert "(normalised)" in render(Leaderboard(folder.path).aggregate())


def test_a_loss_without_a_scale_falls_short_of_zero(folder: Any) -> None:
    for dataset in ("emoji", "digits"):
        for method, level in (("good", 1.0), ("poor", 2.0)):
            for seed in range(5):
                score = Score(metric="loss", value=level + seed / 10, split="test", variant="full")
                names = {"method": method, "dataset": dataset, "data_digest": dataset, "primary_metric": "loss"}
                folder.add(scores=[score], seed=seed, **names)
    found = Leaderboard(folder.path).aggregate(normalise="none")
    lines = found.summary.set_index("entrant")
    assert lines.loc["good", ["mean", "optimality_gap"]].tolist() == pytest.approx([-1.2, 1.2])
    assert "Share of runs by score with its sign turned" in render(found)


def test_several_rows_of_an_entrant_are_told_apart_or_refused(folder: Any) -> None:
    fill(folder, methods={"dense": 0.1})
    for dataset, level in DATASETS.items():
        for seed in range(3):
            for variant, budget in (("full", "3 epochs"), ("subnetwork", "9 epochs")):
                scores = [folder.top1(level + seed / 1000, variant), folder.top1(0.2, "trivial")]
                add(folder, 0.0, "aslp", dataset, seed, scores=scores, budget=budget)
    board = Leaderboard(folder.path)
    with pytest.raises(UserError, match=r"aslp has 2 rows on .*budget \(3 epochs, 9 epochs\).*--by"):
        board.aggregate()
    assert board.aggregate(by=["method", "variant"]).entrants == ["dense, full", "aslp, full", "aslp, subnetwork"]
    assert board.aggregate(where="budget == '3 epochs'").entrants == ["dense", "aslp"]
    with pytest.raises(UserError, match="method"):
        board.aggregate(by=["methd"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalise": "worst"}, "optimum, best, none"),
        ({"missing": "ignore"}, "drop-methods"),
        ({"metrics": ["items"]}, "neither way"),
        ({"metrics": ["top1", "loss"]}, "name one metric"),
        ({"metrics": ["topp1"]}, "top1"),
        ({"where": "method == 'dense'"}, "at least two entrants"),
        ({"where": "dataset == 'emoji'"}, "at least two data sets"),
    ],
)
def test_bad_settings_are_named(folder: Any, options: dict[str, Any], message: str) -> None:
    fill(folder, seeds=2)
    with pytest.raises(UserError, match=message):
        Leaderboard(folder.path).aggregate(**options)


def test_no_baseline_no_scale(folder: Any) -> None:
    for dataset in DATASETS:
        for method in METHODS:
            folder.seeds([0.4, 0.5, 0.6], method=method, dataset=dataset)
    board = Leaderboard(folder.path)
    with pytest.raises(UserError, match="no trivial baseline is recorded"):
        board.aggregate()
    assert board.aggregate(normalise="none").summary["mean_rank"].tolist() == [2, 2, 2]


def test_many_entrants_are_compared_with_the_first(folder: Any) -> None:
    fill(folder, methods={f"method{i:02d}": i / 100 for i in range(14)}, seeds=2)
    found = Leaderboard(folder.path).aggregate()
    assert set(found.improvement["entrant"]) == set(found.entrants)
    assert len(found.improvement) == 2 * 13
    assert any("only method13 is compared" in note for note in found.notes)
    assert "of method13 beats" in render(found)


def test_the_tidy_frame_has_every_number(folder: Any) -> None:
    fill(folder)
    found = Leaderboard(folder.path).aggregate()
    frame = tidy(found)
    assert set(frame["statistic"]) == {
        *("mean_rank", "borda", "borda_rank", "mean", "median", "iqm", "optimality_gap", "profile_score"),
        *("value", "normalised", "rank", "probability_of_improvement", "runs_profile", "ratio_profile"),
    }
    iqm = frame[frame["statistic"] == "iqm"]
    assert iqm["value"].tolist() == found.summary["iqm"].tolist()
    profile = frame[(frame["statistic"] == "runs_profile") & (frame["entrant"] == "dense")]
    assert profile["value"].is_monotonic_decreasing
    assert profile["value"].iloc[0] == 1


def test_the_command(folder: Any, tmp_path: Any) -> None:
    fill(folder)
    add(folder, 0.5, "</script>", "emoji", 0)
    runner = CliRunner()
    refused = runner.invoke(app, ["aggregate", str(folder.path)])
    assert refused.exit_code != 0
    chosen = ["aggregate", str(folder.path), "--missing", "drop-methods"]
    for format in FORMATS:
        done = runner.invoke(app, [*chosen, "--format", format])
        assert done.exit_code == 0, done.output
        assert "random" in done.output
    content = json.loads(runner.invoke(app, [*chosen, "--json"]).output, parse_constant=pytest.fail)
    assert [line["entrant"] for line in content["summary"]] == ["dense", "aslp", "random_mask"]
    out = tmp_path / "overall.parquet"
    assert runner.invoke(app, [*chosen, "--out", str(out)]).exit_code == 0
    assert "iqm" in set(pd.read_parquet(out)["statistic"])


def test_configs_are_chosen_on_validation(folder: Any) -> None:
    """The config that is better on test is not taken, because it is worse on validation."""
    fill(folder, methods={"dense": 0.05})
    for dataset, level in DATASETS.items():
        for sparsity, test, validation in ((0.5, 0.01, 0.1), (0.9, 0.1, 0.01)):
            for seed in range(3):
                scores = [
                    folder.top1(level + test + seed / 1000),
                    folder.top1(level + validation + seed / 1000, split="validation"),
                    folder.top1(0.2, "trivial"),
                ]
                add(folder, 0.0, "aslp", dataset, seed, scores=scores, config={"config": {"sparsity": sparsity}})
                add(folder, 0.0, "other", dataset, seed, scores=scores[:2])
    board = Leaderboard(folder.path)
    with pytest.raises(UserError, match="aslp has 2 rows"):
        board.aggregate(where="method != 'other'")
    found = board.aggregate(where="method in ('aslp', 'other')", select="validation")
    value = found.scores.set_index(["entrant", "dataset"]).loc[("aslp", "emoji"), "value"]
    assert value == pytest.approx(0.4 + 0.01 + 0.001)
    assert any("validation" in note for note in found.notes)
