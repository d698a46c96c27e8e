"""Figures of lines, and the command that draws them."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.curves import Line
from subnetbench.harness.records import Score
from subnetbench.harness.report.curves import draw_lines
from subnetbench.tests.report_samples import Results

VALUES = np.array([0.0, 0.5, 0.9])
LINES = [
    Line("cascade $x_1$ 5 %", "recall_at_10", VALUES, np.array([0.4, 0.35, 0.1]), np.full(3, 0.02), np.full(3, 0.016)),
    Line("level0", "recall_at_10", VALUES, np.array([0.4, 0.2, 0.05]), np.full(3, np.nan), np.full(3, 0.016)),
    Line("cascade $x_1$ 5 %", "speedup", VALUES, np.array([0.9, 1.6, 4.0]), np.full(3, np.nan), np.full(3, np.nan)),
]


def test_pixels_and_paths(tmp_path):
    with Image.open(draw_lines(LINES, "masked_share", tmp_path / "a.png")) as image:
        assert min(image.size) > 600
        assert image.convert("L").getextrema() == (0, 255)
    svg = draw_lines(LINES, "masked_share", tmp_path / "a.svg").read_text()
    for text in ("masked_share", "cascade $x_1$ 5 %", "level0", "recall_at_10", "speedup"):
        assert f">{text}<" in svg
    assert draw_lines(LINES, "masked_share", tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")
    assert draw_lines(LINES, "masked_share", tmp_path / "b.svg").read_text() == svg


def test_pgf_holds_every_number_and_escapes_every_text(tmp_path):
    text = draw_lines(LINES, "masked_share", tmp_path / "a.pgf").read_text()
    for line in LINES:
        for x, y, half in zip(line.values, line.mean, np.nan_to_num(line.half), strict=True):
            assert f"({x:g}, {y:g}) +- (0, {half:g})" in text
    assert text.count("\\nextgroupplot") == 2
    assert text.count("\\addlegendentry") == text.count("\\addlegendimage") == 2
    assert r"xlabel={masked\_share}" in text
    assert r"\addlegendentry{cascade \$x\_1\$ 5 \%}" in text
    assert "{0.016};" in text
    assert text.count("{") == text.count("}")
    assert text.count("\\begin{") == text.count("\\end{") == 2


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match="pgf"):
        draw_lines(LINES, "masked_share", tmp_path / "a.gif")


def test_command(tmp_path):
    results = Results(tmp_path / "results")
    for lr, value in ((0.1, 0.5), (0.01, 0.4)):
        scores = [Score(metric="top1", value=value, split="test", variant="full")]
        results.run(scores, config={"lr": lr, "epochs": 3})
    command = ["curve", str(tmp_path / "results"), "--against", "lr", "--draw", str(tmp_path / "lr.pgf")]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "dense full" in shown.output
    assert "(0.1, 0.5)" in (tmp_path / "lr.pgf").read_text()
    lines = json.loads(CliRunner().invoke(app, [*command[:4], "--json"]).output)
    assert [(line["values"], line["mean"]) for line in lines] == [([0.01, 0.1], [0.4, 0.5])]
