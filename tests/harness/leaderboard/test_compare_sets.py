"""`compare` of one set of rows with another, within a folder and across folders."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from subnetbench import compare as compare_from_python
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard, matching
from subnetbench.harness.leaderboard.compare import Differences, Settings, compare
from subnetbench.harness.leaderboard.compare_formats import render
from subnetbench.harness.leaderboard.formats import FORMATS
from subnetbench.harness.leaderboard.formats import render as render_board

ASLP = [0.50, 0.52, 0.51, 0.53, 0.49]
SUPERMASK = [0.54, 0.55, 0.57, 0.56, 0.53]
OF_ASLP, OF_SUPERMASK = "method == 'aslp'", "method == 'supermask'"


def _compare(folder: Any, other: Any = None, **settings: Any) -> Differences:
    return compare(folder.path, other and other.path, Settings(**({"a": OF_ASLP, "b": OF_SUPERMASK} | settings)))


def test_two_methods_are_paired_by_seed(folder: Any) -> None:
    folder.seeds(ASLP, method="aslp")
    folder.seeds([*SUPERMASK, 0.9], method="supermask", network="other")
    differences = _compare(folder)
    (line,) = differences.rows.to_dict("records")
    theirs = stats.ttest_rel(SUPERMASK, ASLP)
    assert (line["method"], line["method_b"], line["network_b"]) == ("aslp", "supermask", "other")
    assert (line["pairs"], line["seeds_b"], line["verdict"]) == (5, 6, "better")
    assert line["p_corrected"] == pytest.approx(theirs.pvalue)
    assert line["b"] == pytest.approx(np.mean(SUPERMASK))
    assert differences.exit_status == 0
    for format in FORMATS:
        text = render(differences, format)
        assert text.index("aslp") < text.index("supermask")
    swapped = _compare(folder, a=OF_SUPERMASK, b=OF_ASLP)
    assert (swapped.rows["verdict"].item(), swapped.exit_status) == ("worse beyond margin", 1)


def test_seeds_that_do_not_match_are_compared_by_welch(folder: Any) -> None:
    folder.seeds(ASLP, method="aslp")
    for seed, value in enumerate(SUPERMASK):
        folder.add(value, seed=50 + seed, method="supermask")
    line = _compare(folder).rows.iloc[0]
    assert line["p"] == pytest.approx(stats.ttest_ind(SUPERMASK, ASLP, equal_var=False).pvalue)
    assert line["test"] == "Welch t"


def test_across_folders(folder: Any, other_folder: Any) -> None:
    folder.seeds(ASLP, method="aslp")
    folder.seeds(ASLP, method="supermask")
    other_folder.seeds(SUPERMASK, method="supermask")
    other_folder.seeds(ASLP, method="dense")
    line = _compare(folder, other_folder).rows.iloc[0]
    assert line["difference"] == pytest.approx(np.mean(SUPERMASK) - np.mean(ASLP))
    same = _compare(folder, other_folder, a=OF_SUPERMASK)  # the same name, in two folders
    assert same.rows[["method", "method_b"]].to_numpy().tolist() == [["supermask", "supermask"]]


def test_holm_is_over_all_comparisons_that_were_asked_for(folder: Any) -> None:
    """Also over those that turn out to be identical."""
    folder.seeds(ASLP, method="aslp")
    folder.seeds(SUPERMASK, method="supermask")
    folder.seeds(ASLP, method="twin")
    folder.seeds(np.add(ASLP, [0.01, 0.03, -0.01, 0.02, 0.01]), method="third")
    rows = _compare(folder, b="method != 'aslp'").rows.set_index("method_b")
    p = rows["p"]
    assert p["twin"] == 1
    assert rows["p_corrected"]["supermask"] == pytest.approx(3 * p["supermask"])
    assert rows["p_corrected"]["third"] == pytest.approx(2 * p["third"])
    assert rows["verdict"]["twin"] == "identical"


def test_sets_are_compared_row_by_row_or_matched(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for method, values in (("aslp", ASLP), ("supermask", SUPERMASK)):
        for sparsity in (0.5, 0.7):
            folder.seeds(values, method=method, config={"config": {"sparsity": sparsity}})
    assert len(_compare(folder).rows) == 4
    matched = _compare(folder, match=["config.sparsity"]).rows
    assert matched[["config", "config_b"]].to_numpy().tolist() == [["sparsity=0.5"] * 2, ["sparsity=0.7"] * 2]
    chosen = _compare(folder, where="config.sparsity > 0.6").rows
    assert len(chosen) == 1
    with pytest.raises(UserError, match="column to match 'sparsityy'"):
        _compare(folder, match=["sparsityy"])
    monkeypatch.setattr(matching, "_MOST_PAIRS", 3)
    with pytest.raises(UserError, match="4 comparisons: narrow the filters"):
        _compare(folder)
    monkeypatch.undo()
    text = render(_compare(folder), "markdown")
    assert "aslp, sparsity=0.5" in text
    assert "supermask, sparsity=0.7" in text


def test_a_row_is_not_compared_with_itself_nor_twice(folder: Any) -> None:
    for method in ("x", "y", "z"):
        folder.seeds(ASLP, method=method)
    rows = _compare(folder, a="method != ''", b="method != ''").rows
    assert sorted(map(tuple, rows[["method", "method_b"]].to_numpy())) == [("x", "y"), ("x", "z"), ("y", "z")]
    again = compare(folder.path, folder.path, Settings(a="method != ''", b="method != ''"))
    assert len(again.rows) == 3
    with pytest.raises(UserError, match="both are the same row"):
        _compare(folder, a="method == 'x'", b="method == 'x'")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_digest": "d2"},
        {"protocol": "subgroups of unseen concepts", "data_digest": "d2"},
        {"dataset": "digits"},
        {"budget": "9 epochs"},
    ],
)
def test_what_cannot_be_compared_is_an_error(folder: Any, changes: dict[str, str]) -> None:
    folder.seeds(ASLP, method="aslp")
    folder.seeds(SUPERMASK, method="supermask", **changes)
    name, value = next(iter(changes.items()))
    with pytest.raises(UserError, match=rf"no row of a can be compared.*other .*{name} \(a: .*; b: {value}\)"):
        _compare(folder)
    if name == "budget":
        assert len(_compare(folder, across=["budget"]).rows) == 1
    # Where some rows can be compared, the others are listed, and fail the comparison.
    folder.seeds(SUPERMASK, method="aslp", **changes)
    differences = _compare(folder)
    assert len(differences.rows) == 1
    assert len(differences.only_a) == len(differences.missing) == differences.exit_status == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": "method == 'aslpp'"}, r"^a: no row meets this filter \(methods there: aslp, supermask\)"),
        ({"b": "method == 'x'"}, "^b: no row meets this filter"),
        ({"b": "metho == 'x'"}, "^b: there is no column 'metho'; did you mean 'method'"),
        ({"b": "method = 'x'"}, "^b: not an expression"),
        ({"b": None}, "^b: give a filter for both sides"),
        ({"a": None}, "^a: give a filter for both sides"),
        ({"match": "sparsity"}, "^match: "),
        ({"a": None, "b": None}, "name a second leaderboard"),
        ({"a": None, "b": None, "match": ["budget"]}, "^match: is only used with filters"),
    ],
)
def test_bad_filters_are_named(folder: Any, settings: dict[str, Any], message: str) -> None:
    folder.seeds(ASLP, method="aslp")
    folder.seeds(SUPERMASK, method="supermask")
    with pytest.raises(UserError, match=message):
        _compare(folder, **settings)


@pytest.mark.parametrize("failing", ["aslp", "supermask"])
def test_a_set_that_never_finished(folder: Any, failing: str) -> None:
    for method in ("aslp", "supermask"):
        for seed in range(3):
            status = {"status": "failed", "error_kind": "error"} if method == failing else {}
            folder.add(None if status else 0.5, seed=seed, method=method, **status)
    differences = _compare(folder)
    assert (len(differences.rows), differences.exit_status) == (0, 1)
    side = "a" if failing == "aslp" else "b"
    assert f"all 3 runs failed in {side}" in set(differences.missing["reason"])
    assert _compare(folder, allow_missing=True).exit_status == 0
    for format in FORMATS:
        assert failing in render(differences, format)


def test_a_seed_that_failed_on_one_side(folder: Any) -> None:
    folder.seeds(ASLP, method="aslp")
    folder.seeds(SUPERMASK[:4], method="supermask")
    folder.add(None, seed=4, method="supermask", status="failed", error_kind="error")
    differences = _compare(folder)
    (line,) = differences.missing.to_dict("records")
    assert (line["method"], line["method_b"], line["seeds_b"], line["failed_b"]) == ("aslp", "supermask", 4, 1)
    assert differences.exit_status == 1
    assert differences.rows["a"].item() == pytest.approx(np.mean(ASLP[:4]))


def test_the_level_is_kept_among_sets(folder: Any) -> None:
    """Forty comparisons without any true difference: with Holm's correction, no verdict."""
    rng = np.random.default_rng(3)
    folder.seeds(rng.normal(0.5, 0.01, 5), method="aslp")
    for i in range(40):
        folder.seeds(rng.normal(0.5, 0.01, 5), method=f"m{i}")
    rows = _compare(folder, b="method != 'aslp'").rows
    assert len(rows) == 40
    assert set(rows["verdict"]) == {"no difference found"}


def test_the_command_and_the_function(folder: Any) -> None:
    folder.seeds(ASLP, method="aslp")
    folder.seeds(SUPERMASK, method="supermask")
    result = CliRunner().invoke(app, ["compare", str(folder.path), "--a", OF_ASLP, "--b", OF_SUPERMASK])
    assert result.exit_code == 0, result.output
    assert "better" in result.output
    by_name = compare_from_python(folder.path, a=OF_ASLP, b=OF_SUPERMASK)
    by_board = compare_from_python(Leaderboard(folder.path), Leaderboard(folder.path), a=OF_ASLP, b=OF_SUPERMASK)
    assert by_name.rows["p"].item() == by_board.rows["p"].item()
    missing = CliRunner().invoke(app, ["compare", str(folder.path)])
    assert missing.exit_code != 0


def test_the_command_names_a_filter_as_it_is_typed(folder: Any) -> None:
    folder.seeds(ASLP, method="aslp")
    command = ["compare", str(folder.path), "--a", "method == 'none'", "--b", "method == 'aslp'"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("--a: no row meets this filter (methods there: aslp)")


def test_a_run_that_failed_without_a_word_is_listed_without_a_reason(folder: Any) -> None:
    folder.add(0.5)
    folder.add(None, status="failed", seed=1)
    assert "seed 1: failed  (run2)" in render_board(Leaderboard(folder.path))
