"""Metrics by version of the code: no version supersedes another, changes are tested, and what else differs is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.statistics import holm
from subnetbench.harness.leaderboard.history import history

OLD, NEW = "a" * 40, "b" * 40
VALUES = [0.70, 0.71, 0.72, 0.70, 0.71]


@pytest.fixture
def versions(folder: Any) -> Any:
    """aslp gets worse with the second commit and stays so with the third, dense never changes, another runs once."""
    worse = [value - 0.2 + 0.001 * at for at, value in enumerate(VALUES)]
    for sha, code, values in ((OLD, "c1", VALUES), (NEW, "c2", worse), ("c" * 40, "c2", worse)):
        folder.seeds(values, method="aslp", git_sha=sha, code_digest=code)
        folder.seeds(VALUES, method="dense", git_sha=sha, code_digest="c0")
    folder.add(0.5, method="supermask", git_sha=NEW)
    return folder


def test_every_version_has_its_point_in_the_order_of_time(versions: Any) -> None:
    found = history(versions.path)
    aslp = found.frame[found.frame["method"] == "aslp"]
    assert aslp["commit"].tolist() == [OLD, NEW, "c" * 40]
    assert aslp["version"].tolist() == [1, 2, 3]
    assert aslp["first"].is_monotonic_increasing
    assert aslp["seeds"].tolist() == [5, 5, 5]
    assert aslp["mean"].tolist() == pytest.approx([0.708, 0.51, 0.51])
    assert aslp["verdict"].tolist() == ["", "worse", "identical"]
    assert aslp["change"].iloc[1] == pytest.approx(-0.198)
    assert aslp["change_low"].iloc[1] < -0.198 < aslp["change_high"].iloc[1] < 0
    assert found.frame[found.frame["method"] == "dense"]["verdict"].tolist() == ["", "identical", "identical"]
    assert found.changed["commit"].tolist() == [NEW]
    assert "over 1 change." in found.notes[0]


def test_by_code_commits_that_change_nothing_are_one_version(versions: Any) -> None:
    frame = history(versions.path, by="code").frame
    aslp = frame[frame["method"] == "aslp"]
    assert aslp["code_digest"].tolist() == ["c1", "c2"]
    assert aslp["commit"].tolist() == [OLD, f"{NEW} and 1 more"]
    assert frame[frame["method"] == "dense"]["commit"].tolist() == [f"{OLD} and 2 more"]


def test_what_else_differs_is_said(folder: Any) -> None:
    folder.seeds(VALUES, git_sha=OLD, versions={"torch": "2.11"}, numerics="fp32")
    folder.seeds([0.6, 0.61, 0.6, 0.62, 0.6], git_sha=NEW, git_dirty=True, versions={"torch": "2.15"}, numerics="tf32")
    found = history(folder.path)
    assert found.frame["also"].tolist() == ["", "numerics, libraries"]
    assert found.frame["commit"].tolist() == [OLD, f"{NEW}+"]
    assert any("not of the code alone" in note for note in found.notes)
    assert any("not committed (+)" in note for note in found.notes)


def test_failed_runs_are_counted_and_seeds_are_paired(folder: Any) -> None:
    folder.seeds(VALUES, git_sha=OLD)
    folder.seeds([0.71, 0.72, 0.73], git_sha=NEW)
    folder.add(None, git_sha=NEW, seed=4, status="failed", error_kind="nan", error="loss is NaN")
    frame = history(folder.path).frame
    assert frame["failed"].tolist() == [0, 1]
    assert frame["seeds"].tolist() == [5, 3]
    assert frame["change"].iloc[1] == pytest.approx(0.01)


def test_a_version_of_which_nothing_finished_is_said(versions: Any) -> None:
    """Such a version has no point: without a word, the newest code would look as good as the one before it."""
    for seed in range(2):
        versions.add(None, method="aslp", seed=seed, git_sha="d" * 40, code_digest="c4", status="failed", error="nan")
    said = "Not shown, because no run of that version finished: aslp on emoji at dddddddddd (2 failed)."
    assert said in history(versions.path).notes
    assert said in history(versions.path, where="method == 'aslp'").notes
    assert said not in history(versions.path, where="method == 'dense'").notes


def test_replaced_runs_of_a_version_are_counted(folder: Any) -> None:
    for sha in (OLD, NEW):
        folder.seeds(VALUES, method="dense", git_sha=sha, code_digest="c0")
    said = "5 runs are replaced by later ones of the same version, config and seed."
    assert said in history(folder.path, by="code").notes
    assert said not in history(folder.path).notes


def test_lines_of_other_data_budgets_and_configs_stay_apart(folder: Any) -> None:
    for sha in (OLD, NEW):
        folder.seeds(VALUES[:2], git_sha=sha)
        folder.seeds(VALUES[:2], git_sha=sha, data_digest="d2")
        folder.seeds(VALUES[:2], git_sha=sha, config={"config": {"sparsity": 0.9}})
    frame = history(folder.path).frame
    assert frame["version"].tolist() == [1, 2] * 3
    assert sorted(set(frame["config"])) == ["sparsity=0.5", "sparsity=0.9"]


def test_all_changes_are_corrected_together(folder: Any) -> None:
    """Of two lines and three versions there are four tests; Holm's correction holds for tests that share a version."""
    rng = np.random.default_rng(0)
    values = {(m, s): 0.5 + 0.02 * rng.standard_normal(4) for m in ("aslp", "dense") for s in "abc"}
    for (method, sha), of_seeds in values.items():
        folder.seeds(of_seeds, method=method, git_sha=sha * 40)
    steps = [(values[m, two] - values[m, one]) for m in ("aslp", "dense") for one, two in ("ab", "bc")]
    expected = holm([ttest_1samp(step, 0).pvalue for step in steps])
    assert history(folder.path).frame["p_corrected"].dropna().tolist() == pytest.approx(expected.tolist())


def test_mistakes_are_named(versions: Any) -> None:
    with pytest.raises(UserError, match="did you mean 'top1'"):
        history(versions.path, ["top2"])
    with pytest.raises(UserError, match=r"by.*tag"):
        history(versions.path, by="tag")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="where"):
        history(versions.path, where="no_such_column > 1")


def test_the_command_prints_every_format(versions: Any, tmp_path: Path) -> None:
    def run(*options: str) -> str:
        done = CliRunner().invoke(app, ["history", str(versions.path), *options], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.stdout

    text = run("--where", "method == 'aslp'")
    assert "aaaaaaaaaa" in text
    assert "-0.1980 ±" in text
    assert "changes: 1 worse." in text
    assert "dense" not in text
    data = json.loads(run("--json"))
    assert [point["commit"][0] for point in data["points"] if point["method"] == "aslp"] == ["a", "b", "c"]
    assert data["points"][0]["change"] is None
    assert run("--format", "markdown").startswith("### emoji · classification · test")
    assert run("--format", "csv").splitlines()[0].startswith("task,dataset,method")
    for suffix in ("md", "parquet", "json", "csv"):
        run("--out", str(tmp_path / f"h.{suffix}"), "-q")
    assert len(pd.read_parquet(tmp_path / "h.parquet")) == 7
    run("--draw", str(tmp_path / "h.pgf"), "-q")
    drawn = (tmp_path / "h.pgf").read_text()
    assert drawn.count("addlegendentry") == 3
    assert "(2, 0.51) +- (0, " in drawn
    assert CliRunner().invoke(app, ["history", str(versions.path), "--out", str(tmp_path / "h.png")]).exit_code == 1


def test_from_python(versions: Any) -> None:
    found = api.history(versions.path, metrics=["top1"], where="method == 'aslp'")
    assert found.changed["verdict"].tolist() == ["worse"]
    assert found.text("markdown").count("\n|") == 5
