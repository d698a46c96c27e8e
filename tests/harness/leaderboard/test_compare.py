import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.compare import Differences, Settings, compare
from subnetbench.harness.leaderboard.compare_formats import render
from subnetbench.harness.leaderboard.formats import FORMATS
from subnetbench.harness.records import Score

BEFORE = [0.50, 0.52, 0.51, 0.53, 0.49]


def _compare(a: Any, b: Any, **settings: Any) -> Differences:
    return compare(Leaderboard(a.path), Leaderboard(b.path), Settings(**settings))


def _only(differences: Differences) -> pd.Series:
    (line,) = (row for _, row in differences.rows.iterrows())
    return line


def test_seeds_are_paired(folder: Any, other_folder: Any) -> None:
    after = [0.51, 0.54, 0.52, 0.55, 0.50]
    folder.seeds(BEFORE)
    other_folder.seeds([*after, 0.1])  # seed 5 has no partner
    line = _only(_compare(folder, other_folder))
    theirs = stats.ttest_rel(after, BEFORE)
    assert line["p"] == pytest.approx(theirs.pvalue)
    bounds = theirs.confidence_interval()
    assert (line["low"], line["high"]) == pytest.approx((bounds.low, bounds.high))
    assert line["difference"] == pytest.approx(0.014)
    assert (line["pairs"], line["seeds_a"], line["seeds_b"], line["test"]) == (5, 5, 6, "paired t")
    assert line["verdict"] == "better"
    assert len(line["run_ids_b"]) == 6


def test_without_common_seeds_it_is_welch(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    after = [0.61, 0.64, 0.60]
    for seed, value in enumerate(after):
        other_folder.add(value, seed=100 + seed)
    line = _only(_compare(folder, other_folder))
    theirs = stats.ttest_ind(after, BEFORE, equal_var=False)
    assert line["p"] == pytest.approx(theirs.pvalue)
    assert (line["pairs"], line["test"], line["verdict"]) == (0, "Welch t", "better")
    assert np.isnan(line["detectable"])


@pytest.mark.parametrize(("test", "scipy_test"), [("sign_flip", stats.permutation_test), ("wilcoxon", stats.wilcoxon)])
def test_other_tests(folder: Any, other_folder: Any, test: str, scipy_test: Any) -> None:
    after = [0.55, 0.51, 0.58, 0.60, 0.53, 0.57, 0.56]
    before = [*BEFORE, 0.51, 0.50]
    folder.seeds(before)
    other_folder.seeds(after)
    line = _only(_compare(folder, other_folder, test=test))
    differences = np.subtract(after, before)
    if test == "wilcoxon":
        expected = scipy_test(differences, method="exact").pvalue
    else:
        expected = scipy_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
        ).pvalue
    assert line["p"] == pytest.approx(expected)
    assert line["low"] < line["difference"] < line["high"]


def test_three_seeds_leave_a_permutation_test_undecidable(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.1, 0.2, 0.3])
    other_folder.seeds([0.7, 0.8, 0.91])
    assert _only(_compare(folder, other_folder))["verdict"] == "better"
    differences = _compare(folder, other_folder, test="sign_flip")
    line = _only(differences)
    assert (line["p"], line["verdict"]) == (0.25, "undecidable")
    assert np.isnan(line["low"])
    assert any("1 undecidable with 3 seeds" in note for note in differences.notes)


def test_many_comparisons_make_six_seeds_undecidable(folder: Any, other_folder: Any) -> None:
    """Six pairs reach p = 0.031: enough for one comparison at 5 %, not for each of two."""
    for method in ("a", "b"):
        folder.seeds([0.1, 0.2, 0.3, 0.1, 0.2, 0.3], method=method)
    other_folder.seeds([0.2, 0.3, 0.41, 0.2, 0.3, 0.4], method="a")
    assert _only(_compare(folder, other_folder, test="sign_flip"))["verdict"] == "better"
    other_folder.seeds([0.0, 0.3, 0.41, 0.0, 0.3, 0.4], method="b")
    rows = _compare(folder, other_folder, test="sign_flip").rows
    assert set(rows["verdict"]) == {"undecidable"}
    assert rows["p_corrected"].min() == pytest.approx(2 * 2 / 2**6)


def test_single_seeds(folder: Any, other_folder: Any) -> None:
    folder.add(0.5)
    folder.add(0.4, method="same")
    other_folder.add(0.6)
    other_folder.add(0.4, method="same")
    rows = _compare(folder, other_folder).rows.set_index("method")
    assert rows["verdict"].to_dict() == {"edge_popup": "undecidable", "same": "identical"}
    assert rows["difference"]["edge_popup"] == pytest.approx(0.1)
    assert np.isnan(rows["p_corrected"]).all()


@pytest.mark.parametrize(
    ("drop", "margin", "verdict", "status"),
    [
        (0.10, 0.0, "worse beyond margin", 1),
        (0.10, 0.05, "worse beyond margin", 1),
        (0.10, 0.0999, "worse", 0),
        (0.10, 0.2, "worse", 0),
        (-0.10, 0.0, "better", 0),
        (0.001, 0.0, "no difference found", 0),
    ],
)
def test_margin_and_exit_status(
    folder: Any, other_folder: Any, drop: float, margin: float, verdict: str, status: int
) -> None:
    noise = np.array([0.004, -0.003, 0.002, -0.004, 0.001])
    folder.seeds(BEFORE)
    other_folder.seeds(np.array(BEFORE) - drop + noise)
    differences = _compare(folder, other_folder, margin=margin)
    assert (_only(differences)["verdict"], differences.exit_status) == (verdict, status)
    # For a metric of which less is better, the same change is the other way round.
    for own, values in ((folder, BEFORE), (other_folder, np.array(BEFORE) + drop + noise)):
        for seed, value in enumerate(values):
            own.add(scores=[Score(metric="loss", value=value, split="test", variant="full")], seed=seed)
    differences = _compare(folder, other_folder, margin=margin, metrics=["loss"])
    assert (_only(differences)["verdict"], differences.exit_status) == (verdict, status)


def test_a_metric_without_a_better_way_only_changes(folder: Any, other_folder: Any) -> None:
    for own, shift in ((folder, 0.0), (other_folder, 0.2)):
        for seed in range(3):
            own.add(scores=[folder.top1(0.5), Score(metric="sparsity", value=0.5 + shift, variant="full")], seed=seed)
    differences = _compare(folder, other_folder, metrics=["sparsity"])
    assert (_only(differences)["verdict"], differences.exit_status) == ("changed", 0)


def test_coverage_and_its_reasons(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE)
    other_folder.seeds(BEFORE)
    folder.add(0.5, method="old")
    other_folder.add(0.5, method="new")
    for own, digest, epochs in ((folder, "d1", "3 epochs"), (other_folder, "d2", "9 epochs")):
        own.add(0.5, method="data", data_digest=digest)
        own.add(0.5, method="budget", budget=epochs)
    differences = _compare(folder, other_folder)
    assert _only(differences)["verdict"] == "identical"
    for only, name in ((differences.only_a, "old"), (differences.only_b, "new")):
        assert only.set_index("method")["reason"].to_dict() == {
            name: "no such row on the other side",
            "data": "other data_digest",
            "budget": "other budget",
        }
    across = _compare(folder, other_folder, across=["budget"])
    assert set(across.rows["method"]) == {"edge_popup", "budget"}
    assert set(across.only_a["method"]) == {"old", "data"}


def test_a_changed_config_is_compared_and_told(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE, config={"config": {"lr": 0.1, "same": 1}})
    other_folder.seeds(BEFORE, config={"config": {"lr": 0.2, "same": 1}})
    differences = _compare(folder, other_folder)
    assert len(differences.rows) == 1
    assert any("config changed (lr: 0.1 -> 0.2)" in note for note in differences.notes)
    # With a second candidate nobody can say which is which; the unchanged one still finds its partner.
    other_folder.seeds(BEFORE, config={"config": {"lr": 0.3, "same": 1}})
    folder.seeds(BEFORE, config={"config": {"lr": 0.4, "same": 1}})
    folder.seeds(BEFORE, config={"config": {"lr": 0.5, "same": 1}})
    other_folder.seeds(BEFORE, config={"config": {"lr": 0.5, "same": 1}})
    differences = _compare(folder, other_folder)
    assert len(differences.rows) == 1
    assert set(differences.only_a["reason"]) == {"other config, and several candidates"}


def test_rows_and_metrics_are_chosen(folder: Any, other_folder: Any) -> None:
    for own in (folder, other_folder):
        own.seeds(BEFORE)
        own.seeds(BEFORE, method="dense")
    differences = _compare(folder, other_folder, where="method == 'dense'", metrics=["wall_seconds"])
    line = _only(differences)
    assert (line["method"], line["metric"], line["verdict"]) == ("dense", "wall_seconds", "identical")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"across": ["data_digest"]}, "across"),
        ({"test": "bayes"}, "test"),
        ({"margin": -1}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"confidence": 1.5}, "confidence"),
        ({"metrics": ["topp1"]}, "top1"),
    ],
)
def test_bad_settings_are_named(folder: Any, other_folder: Any, settings: dict[str, Any], message: str) -> None:
    folder.add()
    other_folder.add()
    with pytest.raises(UserError, match=message):
        _compare(folder, other_folder, **settings)


def test_nothing_in_common(folder: Any, other_folder: Any) -> None:
    folder.add()
    other_folder.add(dataset="elsewhere")
    differences = _compare(folder, other_folder)
    assert len(differences.rows) == 0
    assert differences.exit_status == 1  # what a had is missing
    assert _compare(folder, other_folder, allow_missing=True).exit_status == 0
    assert (len(differences.only_a), len(differences.only_b)) == (1, 1)
    for format in FORMATS:
        assert render(differences, format)
    other_folder.path.joinpath("empty").mkdir()
    with pytest.raises(UserError, match="no primary metric"):
        compare(Leaderboard(folder.path), Leaderboard(other_folder.path / "empty"))


def test_every_format_tells_what_got_worse_first(folder: Any, other_folder: Any) -> None:
    folder.seeds(BEFORE, method="fallen")
    folder.seeds(BEFORE, method="kept")
    folder.add(0.5, method="gone")
    other_folder.seeds(np.array(BEFORE) - [0.1, 0.11, 0.1, 0.1, 0.1], method="fallen")
    other_folder.seeds(BEFORE, method="kept")
    differences = _compare(folder, other_folder)
    for format in FORMATS:
        text = render(differences, format)
        assert text.index("fallen") < text.index("kept")
        if format != "csv":
            assert "2 compared (1 worse beyond margin, 1 identical); only in a: 1 rows, only in b: 0 rows." in text
            assert "gone" in text
    assert "-0.1020 ± 0.0056" in render(differences)
    content = json.loads(render(differences, "json"), parse_constant=pytest.fail)
    assert content["exit_status"] == 1
    with pytest.raises(UserError, match="format"):
        render(differences, "xml")


def test_the_verdict_keeps_its_level(folder: Any, other_folder: Any) -> None:
    """Forty rows without any true difference: with Holm's correction, hardly ever a verdict."""
    rng = np.random.default_rng(5)
    for i in range(40):
        for own in (folder, other_folder):
            own.seeds(rng.normal(0.5, 0.01, 3), method=f"m{i}")
    rows = _compare(folder, other_folder).rows
    assert (rows["p"] < 0.05).sum() >= 1  # uncorrected, some would have been called a difference
    assert set(rows["verdict"]) == {"no difference found"}


@pytest.mark.parametrize(
    ("items", "gain", "verdict"),
    [(None, 0.02, "undecidable"), (750.0, 1 / 750, "no difference found"), (750.0, 0.02, "better")],
)
def test_the_same_difference_for_every_seed(
    folder: Any, other_folder: Any, items: float | None, gain: float, verdict: str
) -> None:
    """It is certain beyond what rounding to whole items explains, and says nothing where nobody knows the items."""
    for own, shift in ((folder, 0.0), (other_folder, gain)):
        for seed, value in enumerate((0.5, 0.6, 0.52)):
            scores = [Score(metric="top1", value=value + shift, split="test", variant="full")]
            if items:
                scores.append(Score(metric="items", value=items, split="test", variant="full"))
            own.add(seed=seed, scores=scores)
    differences = _compare(folder, other_folder)
    assert differences.rows["verdict"].tolist() == [verdict]
    notes = "\n".join(differences.notes)
    assert ("over how many items they were taken" in notes) == (items is None)
    assert "NaN" not in render(differences, "json")
