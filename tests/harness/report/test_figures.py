"""Figures for a paper."""

from pathlib import Path

import pytest
from PIL import Image

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import View
from subnetbench.harness.report import Options, report_content
from subnetbench.harness.report.figures import check_formats, write_figures
from subnetbench.harness.report.types import ReportContent


@pytest.fixture(scope="module")
def content(results: Path) -> ReportContent:
    """One cost and one quality a task: every kind of figure, few of them."""
    metrics = ["top1", "recall_at_1", "text_to_image_recall_at_10", "macs_nonzero", "lifetime_macs_small_world"]
    return report_content(results, Options(view=View(metrics=metrics)))


@pytest.fixture(scope="module")
def written(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("figures")
    return {path.name: path for path in write_figures(content, folder, ["pdf", "png", "svg"])}


def test_every_kind_of_figure_is_written(written: dict[str, Path]) -> None:
    stems = {name.rsplit(".", 1)[0] for name in written}
    assert {stem.split("-emoji")[0] for stem in stems} == {"trade-off", "matrix", "seeds", "curves", "study"}
    assert len(written) == 3 * len(stems)
    assert all(stem.replace("-", "").replace("_", "").replace(".", "").isalnum() for stem in stems)


def test_files_are_what_their_names_say(written: dict[str, Path]) -> None:
    for path in written.values():
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF-")
            assert b"/Type3" not in content  # many venues refuse Type 3 fonts
        elif path.suffix == ".svg":
            assert b"<svg" in content
        else:
            with Image.open(path) as image:
                assert min(image.size) > 300
                assert image.convert("L").getextrema()[0] < 100


def test_names_are_text_in_figures_too(written: dict[str, Path]) -> None:
    svg = written["seeds-emoji-classification-test-top1.svg"].read_text()
    assert "<script" not in svg
    assert "&lt;/script&gt;" in svg


def test_the_same_results_give_the_same_files(content: ReportContent, written: dict[str, Path], tmp_path: Path) -> None:
    for path in write_figures(content, tmp_path, ["pdf", "svg"]):
        assert path.read_bytes() == written[path.name].read_bytes(), path.name


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UserError, match="allowed: pdf, png, svg"):
        check_formats(["gif"])


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'subnetbench\[report\]'"):
        check_formats(["pdf"])
