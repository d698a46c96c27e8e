"""The comparison over data sets in a report: what is compared, what is said instead, and the figures."""

from pathlib import Path

import numpy as np
import pytest

from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.records import Score
from subnetbench.harness.report import Options, report_content
from subnetbench.harness.report.page import render_page
from subnetbench.tests.harness.leaderboard.conftest import Folder


def filled(
    path: Path, datasets: tuple[str, ...] = ("digits", "emoji"), variants: tuple[str, ...] = ("full",)
) -> Folder:
    folder = Folder(path)
    rng = np.random.default_rng(0)
    for at, dataset in enumerate(datasets):
        for method in ("aslp", "dense"):
            for seed in range(4):
                value = 0.5 + 0.1 * at + 0.05 * (method == "dense") + rng.normal(0, 0.01)
                scores = [folder.top1(value, variant) for variant in variants]
                scores.append(Score(metric="top1", value=0.1, split="test", variant="trivial"))
                folder.add(seed=seed, method=method, dataset=dataset, data_digest=dataset, scores=scores)
    return folder


def test_numbers_are_those_of_the_leaderboard(tmp_path: Path) -> None:
    path = filled(tmp_path / "a").path
    (shown,) = report_content(path).overall
    found = Leaderboard(path).aggregate()
    assert (shown.task, shown.datasets, shown.entrants) == ("classification", ["digits", "emoji"], ["dense", "aslp"])
    for name, estimates in shown.estimates.items():
        assert [each.value for each in estimates] == pytest.approx(found.summary[name].tolist(), rel=1e-6)
    assert [each.low for each in shown.estimates["iqm"]] == pytest.approx(found.summary["iqm_low"].tolist(), rel=1e-6)
    forth, back = shown.improvement[0][1], shown.improvement[1][0]
    assert forth is not None
    assert back is not None
    assert shown.improvement[0][0] is None
    assert forth.value + back.value == pytest.approx(1)
    assert [len(profile.shares) for profile in shown.profiles] == [2, 2]
    assert shown.notes == found.notes
    assert b"overallSection" in render_page(report_content(path))


def test_variants_are_told_apart(tmp_path: Path) -> None:
    (shown,) = report_content(filled(tmp_path / "a", variants=("full", "subnetwork")).path).overall
    assert set(shown.entrants) == {"dense, full", "dense, subnetwork", "aslp, full", "aslp, subnetwork"}


def test_nothing_to_compare_is_said_where_it_might_be_expected(tmp_path: Path) -> None:
    one = report_content(filled(tmp_path / "a", datasets=("emoji",)).path)
    assert one.overall == []
    assert not any("data sets of" in note for note in one.notes)
    folder = Folder(tmp_path / "b")
    for dataset, method in (("emoji", "dense"), ("digits", "aslp")):
        folder.seeds([0.5, 0.6], method=method, dataset=dataset, data_digest=dataset)
    none = report_content(folder.path)
    assert none.overall == []
    assert any(note.startswith("Over the data sets of classification: not compared, because") for note in none.notes)


def test_figures_for_a_paper(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from subnetbench.harness.report.figures import write_figures

    content = report_content(filled(tmp_path / "a").path, Options())
    names = {path.name for path in write_figures(content, tmp_path / "figures", ["png"])}
    assert {
        "overall-classification-iqm.png",
        "overall-classification-mean_rank.png",
        "improvement-classification.png",
        "profile-classification-runs.png",
        "profile-classification-ratio.png",
    } <= names
