"""Configs chosen on validation, and the warning where they are chosen on test."""

import json
import random

import pytest
from typer.testing import CliRunner

from subnetbench import report
from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard, View, render, write
from subnetbench.harness.records import Score

SEARCHED = "lr,momentum"


def add(folder, method, config, scores, *, searched=SEARCHED, variant="full", **changes):
    """Runs of one config; `scores` are (validation, test) of seeds 0, 1, ... (None: not scored there)."""
    for seed, pair in enumerate(scores):
        splits = zip(("validation", "test"), pair, strict=True)
        found = [folder.top1(value, variant, split) for split, value in splits if value is not None]
        found.append(Score(metric="parameters", value=100.0, variant=variant))
        folder.add(
            None, method=method, seed=seed, config={"config": config}, scores=found, searched_fields=searched, **changes
        )


@pytest.fixture
def sweep(folder):
    """Two methods; on test the best config of `aslp` is another one than on validation."""
    add(folder, "aslp", {"lr": 0.1}, [(0.70, 0.60), (0.72, 0.62)])
    add(folder, "aslp", {"lr": 0.2}, [(0.60, 0.80), (0.62, 0.82)])
    add(folder, "aslp", {"lr": 0.3}, [(0.10, 0.10), (0.12, 0.12)])
    add(folder, "dense", {"lr": 0.1}, [(0.50, 0.40), (0.50, 0.44)])
    return folder


def chosen(path, **options):
    frame = api.leaderboard(path, metrics=["top1"], select="validation", **options).frame
    return frame.set_index("method")


def notes_of(path, **options):
    return json.loads(api.leaderboard(path, **options).text("json"))["notes"]


def test_the_best_config_on_validation_is_shown_with_its_test_score(sweep):
    frame = chosen(sweep.path)
    assert frame["split"].unique().tolist() == ["test"]
    assert frame.loc["aslp", "config"] == "lr=0.1"
    assert frame.loc["aslp", ["mean", "validation", "chosen_from"]].tolist() == pytest.approx([0.61, 0.71, 3])
    assert frame.loc["dense", ["mean", "validation", "chosen_from"]].tolist() == pytest.approx([0.42, 0.5, 1])


def test_no_test_score_takes_part_in_the_choice(folder, tmp_path):
    draw = random.Random(0)
    for method in ("aslp", "dense"):
        for i in range(5):
            validation = round(draw.random(), 3)
            add(folder, method, {"lr": i}, [(validation, draw.random()) for _ in range(2)])
    frame = chosen(folder.path)
    for method, row in frame.iterrows():
        board = Leaderboard(folder.path).frame(metrics=["top1"], splits=["validation"], where=f"method == '{method}'")
        assert row["config"] == board.loc[board["mean"].idxmax(), "config"]
        assert row["validation"] == board["mean"].max()


def test_the_primary_metric_chooses_whatever_is_shown(sweep):
    frame = api.leaderboard(sweep.path, metrics=["parameters"], select="validation").frame
    assert frame.set_index("method").loc["aslp", "config"] == "lr=0.1"


def test_filters_are_about_validation_rows(sweep):
    # On test only lr=0.2 is above 0.7; on validation lr=0.1 is.
    frame = chosen(sweep.path, where="top1 > 0.65")
    assert frame["config"].to_dict() == {"aslp": "lr=0.1"}


def test_methods_without_equal_numbers_of_configs_are_told(sweep):
    told = " ".join(notes_of(sweep.path, select="validation"))
    assert "Unequal numbers of configs to choose from on emoji (classification): aslp 3, dense 1." in told
    assert "Chosen on test" not in told
    even = " ".join(notes_of(sweep.path, select="validation", where="method == 'aslp'"))
    assert "Unequal" not in even


def test_equal_means_and_single_seeds_are_told(folder):
    add(folder, "aslp", {"lr": 0.2}, [(0.5, 0.9)])
    add(folder, "aslp", {"lr": 0.1}, [(0.5, 0.1)])
    assert chosen(folder.path).loc["aslp", "config"] == "lr=0.1"
    told = " ".join(notes_of(folder.path, select="validation"))
    assert "1 of 1 choices between equal means" in told
    assert "1 of 1 choices rest on one seed" in told


def test_a_config_whose_other_seeds_failed_is_not_chosen_for_its_lucky_one(folder):
    add(folder, "aslp", {"lr": 0.1}, [(0.5, 0.5), (0.52, 0.5)])
    add(folder, "aslp", {"lr": 9.0}, [(0.9, 0.9)])
    folder.add(
        None, method="aslp", seed=1, config={"config": {"lr": 9.0}}, status="failed", error_kind="nan", error="x"
    )
    frame = chosen(folder.path)
    assert frame.loc["aslp", ["config", "chosen_from"]].tolist() == ["lr=0.1", 2]
    assert "1 rows of configs with fewer seeds than others" in " ".join(notes_of(folder.path, select="validation"))


def test_what_no_search_chooses_is_told_and_can_be_kept_apart(folder):
    for sparsity, score in ((0.5, 0.8), (0.9, 0.6)):
        for lr in (0.1, 0.2):
            add(folder, "aslp", {"lr": lr, "sparsity": sparsity}, [(score - lr, score), (score - lr, score)])
    assert chosen(folder.path)["config"].tolist() == ["lr=0.1, sparsity=0.5"]
    assert "leaves alone too: sparsity" in " ".join(notes_of(folder.path, select="validation"))
    apart = chosen(folder.path, within=["sparsity"])
    assert sorted(apart["config"]) == ["lr=0.1, sparsity=0.5", "lr=0.1, sparsity=0.9"]
    assert apart["chosen_from"].tolist() == [2, 2]
    assert "leaves alone too" not in " ".join(notes_of(folder.path, select="validation", within=["sparsity"]))


def test_budgets_presets_and_variants_have_choices_of_their_own(folder):
    add(folder, "aslp", {"lr": 0.1}, [(0.5, 0.5)], budget="3 epochs")
    add(folder, "aslp", {"lr": 0.2}, [(0.9, 0.9)], budget="30 epochs")
    add(folder, "aslp", {"lr": 0.3}, [(0.7, 0.7)], budget="3 epochs", preset="paper")
    add(folder, "aslp", {"lr": 0.4}, [(0.6, 0.6)], budget="3 epochs", variant="half")
    assert chosen(folder.path)["chosen_from"].tolist() == [1, 1, 1, 1]


def test_records_without_validation_scores_are_told_and_not_chosen(sweep):
    add(sweep, "old", {"lr": 0.1}, [(None, 0.9), (None, 0.9)], searched="")
    assert "old" not in chosen(sweep.path).index
    told = " ".join(notes_of(sweep.path, select="validation"))
    assert "1 rows without a validation score are not shown (old)" in told


def test_nothing_to_choose_from_is_an_error(folder):
    add(folder, "old", {"lr": 0.1}, [(None, 0.9)])
    with pytest.raises(UserError, match="records of earlier versions hold test scores alone"):
        chosen(folder.path)
    with pytest.raises(UserError, match="select: no such choice"):
        View(select="test")


def test_trials_without_a_test_score_are_no_candidates(sweep):
    add(sweep, "aslp", {"lr": 0.7}, [(0.99, None), (0.99, None)], study="s", trial=3)
    frame = chosen(sweep.path, trials=True)
    assert frame.loc["aslp", ["config", "chosen_from"]].tolist() == ["lr=0.1", 3]


def test_ranking_searched_configs_by_test_is_a_warning_in_every_listing(sweep, tmp_path, caplog):
    warning = "Chosen on test: rows that differ in searched fields are ranked by test scores: aslp on emoji (lr)."
    board = Leaderboard(sweep.path)
    for format in ("terminal", "markdown", "latex", "json"):
        text = " ".join(render(board, format, View(metrics=["top1"]), width=4000).split())
        assert warning in text
        assert "validation chooses on validation scores" in text
    for format in ("csv", "parquet"):  # no notes
        caplog.clear()
        write(board, tmp_path / f"board.{format}")
        assert warning in caplog.text
    assert warning in " ".join(report(sweep.path, tmp_path / "report.html").content.notes)
    assert "Chosen on test" not in render(board, "terminal", View(splits=["validation"]))


def test_no_warning_where_only_other_fields_or_the_tuned_config_differ(folder):
    add(folder, "aslp", {"sparsity": 0.5}, [(0.5, 0.5)])
    add(folder, "aslp", {"sparsity": 0.9}, [(0.4, 0.4)])
    add(folder, "dense", {"lr": 0.1}, [(0.4, 0.4)])
    add(folder, "dense", {"lr": 0.7}, [(0.5, 0.5)], tuned=True)
    assert "Chosen on test" not in render(Leaderboard(folder.path), "terminal")


def test_records_that_do_not_name_searched_fields_are_told(folder):
    add(folder, "aslp", {"lr": 0.1}, [(0.5, 0.5)], searched="")
    add(folder, "aslp", {"lr": 0.2}, [(0.4, 0.4)], searched="")
    text = " ".join(render(Leaderboard(folder.path), "terminal", width=4000).split())
    assert "Whether a config was chosen on test is not known of aslp on emoji" in text


def test_tuned_rows_of_unequal_searches_are_told(folder):
    for method, trials in (("aslp", 12.0), ("dense", 12.0)):
        scores = [folder.top1(0.5), Score(metric="search_trials", value=trials)]
        folder.add(None, method=method, scores=scores, tuned=True)
    assert "unequal numbers of trials" not in " ".join(notes_of(folder.path))
    scores = [folder.top1(0.6), Score(metric="search_trials", value=6.0)]
    folder.add(None, method="supermask", scores=scores, tuned=True)
    told = " ".join(notes_of(folder.path))
    assert "Tuned with unequal numbers of trials on emoji (classification): aslp 12, dense 12, supermask 6." in told


def test_from_the_command_line(sweep, tmp_path):
    done = CliRunner().invoke(app, ["leaderboard", str(sweep.path), "--select", "validation", "-m", "top1", "--json"])
    assert done.exit_code == 0, done.output
    cells = {cell["method"]: cell for cell in json.loads(done.output)["cells"]}
    assert (cells["aslp"]["config"], cells["aslp"]["chosen_from"]) == ("lr=0.1", 3)
    table = CliRunner().invoke(app, ["leaderboard", str(sweep.path), "--select", "validation", "-m", "top1"])
    assert "0.6100" in table.output
    assert "0.7100" in table.output
    assert "0.8100" not in table.output
    sources = CliRunner().invoke(
        app, ["leaderboard", str(sweep.path), "--select", "validation", "-m", "top1", "--sources", "--format", "csv"]
    )
    assert sources.output.count("aslp") >= 2
    assert "0.82" not in sources.output
    validation = CliRunner().invoke(app, ["leaderboard", str(sweep.path), "--split", "validation", "-m", "top1"])
    assert "0.7100" in validation.output
    assert "0.4200" not in validation.output
    page = CliRunner().invoke(
        app, ["report", str(sweep.path), "--select", "validation", "--out", str(tmp_path / "report.html")]
    )
    assert page.exit_code == 0, page.output
    rows = report(sweep.path, tmp_path / "again.html", select="validation").content.rows
    assert {(row.method, row.chosen_from, round(row.validation, 3)) for row in rows} == {
        ("aslp", 3, 0.71),
        ("dense", 1, 0.5),
    }


def test_configs_that_were_allowed_the_same_compete_whatever_they_spent(folder):
    for width, validation, macs in ((8, 0.5, 1e9), (16, 0.7, 4e9)):
        for seed in (0, 1):
            scores = [folder.top1(validation + seed / 100, split=split) for split in ("validation", "test")]
            spent = {"training_macs": macs, "input_training_macs": 0.0}
            folder.add(scores=scores, seed=seed, config={"config": {"width": width}}, **spent)
    frame = api.leaderboard(folder.path, metrics=["top1"], select="validation").frame
    assert frame["budget"].tolist() == ["3 epochs, 4 GMAC"]
