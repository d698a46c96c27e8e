"""The page as a file: whole, closed to the outside, of bounded size. What a browser makes of it: tests/browser."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.report import Options, page, render_page, write_page
from subnetbench.harness.report.types import ReportContent


def _part(text: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    assert found
    return found[1]


def test_the_content_comes_back_whole(content: ReportContent) -> None:
    text = render_page(content).decode()
    found = re.search(r'id="content">([A-Za-z0-9+/=]+)<', text)
    assert found
    assert json.loads(gzip.decompress(base64.b64decode(found[1]))) == json.loads(json.dumps(content.to_json()))


def test_names_of_others_are_nowhere_in_the_markup(content: ReportContent) -> None:
    text = render_page(replace(content, title="</title><script>{{script}}{{content}}")).decode()
    assert "hacked" not in text
    assert text.count("<script") == 2
    assert "&lt;/title&gt;&lt;script&gt;{{script}}{{content}}</title>" in text


def test_the_browser_may_run_and_fetch_nothing_else(content: ReportContent) -> None:
    text = render_page(content).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    for name, directive in (("style", "style-src"), ("script", "script-src")):
        digest = base64.b64encode(hashlib.sha256(_part(text, name).encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'; img-src data: blob:; ")
    # The name of SVG is no address that anything is fetched from.
    assert re.findall(r"https?://[^\s\"'`]+", text) == ["http://www.w3.org/2000/svg"]


def test_no_picture_is_embedded(content: ReportContent) -> None:
    text = render_page(content).decode()
    assert "<img" not in text
    assert not re.search(r"data:image|base64,", text)


def test_a_large_report_is_cut_and_says_so(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_page(results, tmp_path / "whole.html")
    monkeypatch.setattr(page, "MAX_BYTES", (tmp_path / "whole.html").stat().st_size - 1)
    cut = write_page(results, tmp_path / "cut.html")
    assert len(whole.runs) == len(cut.runs)
    assert any("To keep this page small" in note for note in cut.notes)
    assert (tmp_path / "cut.html").stat().st_size < (tmp_path / "whole.html").stat().st_size


def test_a_folder_is_not_written_over(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        write_page(results, tmp_path)


def test_published_values_stand_beside_measured_ones(samples: ModuleType, tmp_path: Path) -> None:
    from subnetbench.harness.leaderboard import load_published
    from subnetbench.harness.records import Score

    file = tmp_path / "published.yaml"
    file.write_text(
        "tables:\n"
        "  - {source: Table 1, verified: false, unit: percent, method: dense, dataset: emoji, metric: top1,\n"
        "     split: test, protocol: groups of unseen concepts, epochs: 3, images: 1000, image_size: 32,\n"
        "     rows: [{values: [51.0]}, {label: longer, epochs: 90, values: [60.0]}]}\n"
    )
    results = samples.Results(tmp_path / "results")
    results.run([Score(metric="top1", value=0.5, split="test", variant="full")])
    content = write_page(results.path, tmp_path / "report.html", Options(published=load_published([file])))
    line, other = content.published
    assert (other.label, other.reason, other.difference) == ("longer", "epochs: 90 there, 3 here", None)
    assert (line.published, line.difference, line.verified) == (0.51, pytest.approx(-0.01), False)
