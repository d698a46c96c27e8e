import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import FORMATS, Leaderboard, View, load_published, render, write
from subnetbench.harness.leaderboard.document import number
from subnetbench.harness.records import Score

HOSTILE = "=1+1|<script>alert(1)</script>\x1b[31m\u202e`[x](y)`_&%$#{}\\~^*[bold]\nnew line"


@pytest.fixture
def board(folder: Any) -> Leaderboard:
    for method, values in (("edge_popup", [0.5, 0.52, 0.54]), ("aslp", [0.7, 0.71, 0.69])):
        for seed, value in enumerate(values):
            scores = [
                folder.top1(value),
                folder.top1(0.1, "trivial"),
                Score(metric="parameters", value=2_425_024, variant="full"),
            ]
            folder.add(scores=scores, seed=seed, method=method, budget="3 epochs x 800 images")
    failure = {"status": "failed", "error_kind": "nan", "error": "loss is NaN"}
    folder.add(None, seed=9, budget="3 epochs x 800 images", **failure)
    return Leaderboard(folder.path)


def test_every_format_shows_every_method_and_figure(board: Leaderboard) -> None:
    for format in FORMATS:
        text = render(board, format).replace("\\_", "_")
        assert "edge_popup" in text
        assert "aslp" in text
        assert "0.52" in text
        assert "0.7" in text
    with pytest.raises(UserError, match="markdown"):
        render(board, "markdwn")


def test_the_terminal_table(board: Leaderboard) -> None:
    text = render(board, "terminal", width=100)
    assert max(map(len, text.splitlines())) <= 100
    lines = [line.split() for line in text.splitlines()]
    assert ["1", "1", "0", "aslp", "3", "0.7000", "±", "0.0248", "0.1000", "✓", "2.43", "M", "9.0000"] in lines
    assert (
        "emoji · classification · test · groups of unseen concepts · data d1 · network conv2 · budget 3 epochs"
        in " ".join(text.split())
    )
    assert "edge_popup on emoji, seed 9: failed, nan: loss is NaN" in text
    assert "over seeds, not over test items" in text


def test_narrow_terminals_get_the_same_figures(board: Leaderboard) -> None:
    wide, narrow = render(board, "terminal", width=200), render(board, "terminal", width=48)
    assert max(map(len, narrow.splitlines())) <= 48
    for text_of_value in ("0.7000 ± 0.0248", "2.43 M", "9.0000"):
        assert wide.count(text_of_value) == narrow.count(text_of_value) > 0
    assert narrow.count("edge_popup") > wide.count("edge_popup")


def test_markdown_is_a_table(board: Leaderboard) -> None:
    lines = [line for line in render(board, "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert re.fullmatch(r"\|( -{3}:? \|)+", lines[1])


def test_latex_rows_have_as_many_cells_as_columns(board: Leaderboard) -> None:
    text = render(board, "latex")
    columns = re.search(r"begin\{tabular\}\{([lr]+)\}", text)
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert columns is not None
    assert {row.count(" & ") for row in rows} == {len(columns[1]) - 1}
    assert "$\\pm$" in text
    assert "±" not in "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def test_csv_and_json_hold_the_whole_frame(board: Leaderboard) -> None:
    frame = board.frame()
    lines = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert len(lines) == len(frame)
    assert [float(line["mean"]) for line in lines] == frame["mean"].tolist()
    assert lines[0]["run_ids"].split() == list(frame["run_ids"][0])
    content = json.loads(render(board, "json"), parse_constant=pytest.fail)
    assert [cell["mean"] for cell in content["cells"]] == frame["mean"].tolist()
    assert content["failures"][0]["error"] == "loss is NaN"
    assert any("1 run failed" in note for note in content["notes"])


@pytest.mark.parametrize("name", ["b.csv", "b.json", "b.md", "b.tex", "b.txt", "b.parquet"])
def test_files(board: Leaderboard, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    write(board, path)
    if name == "b.parquet":
        table = pq.read_table(path)
        assert table["mean"].to_pylist() == board.frame()["mean"].tolist()
        assert table["run_ids"].to_pylist()[0] == list(board.frame()["run_ids"][0])
    else:
        assert "edge" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.glob("b.*")] == [name]
    with pytest.raises(UserError, match=r"\.parquet"):
        write(board, tmp_path / "b.xls")


def test_hostile_names_are_text(folder: Any) -> None:
    folder.add(method=HOSTILE, config={HOSTILE: 1})
    folder.add(method=HOSTILE, config={HOSTILE: 2})
    folder.add(None, status="failed", error=f"{HOSTILE} error", error_kind=HOSTILE, seed=3)
    board = Leaderboard(folder.path)
    for format in ("terminal", "markdown", "latex", "csv"):
        text = render(board, format)
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "[bold]" in render(board, "terminal", width=300)
    markdown = render(board, "markdown")
    assert "<script>" not in markdown
    assert len({re.sub(r"\\.", "", line).count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    latex = "\n".join(line for line in render(board, "latex").splitlines() if not line.startswith("%"))
    assert re.search(r"(?<!\\)[%#]", latex) is None
    methods = {line["method"] for line in csv.DictReader(io.StringIO(render(board, "csv")))}
    assert all(method.startswith("'=") for method in methods)
    assert json.loads(render(board, "json"))["cells"][0]["method"] == HOSTILE


def test_metrics_rows_and_published_figures_are_chosen(board: Leaderboard, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "papers: {p: A paper}\n"
        "tables:\n"
        "  - {source: table 1, paper: p, verified: quoted, unit: percent, metric: top1, method: aslp, dataset: emoji,\n"
        "     split: test, protocol: groups of unseen concepts, epochs: 3, images: 800, image_size: native,\n"
        "     rows: [{label: theirs, values: [[68, 69]]}, {label: longer, epochs: 90, values: [75]}]}\n"
    )
    text = render(board, "terminal", View(["top1"], where="method == 'aslp'"), load_published([path]), width=160)
    assert not re.search(r"edge_popup +(3|full)", text)
    assert "parameters" not in text
    published = text.split("Published numbers")[1]
    for words in ("0.7000 ± 0.0248", "0.6800 to 0.6900", "+0.0150", "quoted", "theirs", "table 1"):
        assert words in published
    others = text.split("Published numbers that are not comparable")[1]
    assert "epochs: 90" in others
    data = json.loads(render(board, "json", View(["top1"], where="method == 'aslp'"), load_published([path])))
    assert [(line["label"], line["comparable"]) for line in data["published"]] == [("theirs", True), ("longer", False)]
    assert [line["difference"] for line in data["published"]] == [pytest.approx(0.015), None]
    assert data["published"][1]["reason"] == "epochs: 90 there, 3 here"


def test_cells_of_fewer_seeds_say_so(folder: Any) -> None:
    folder.seeds([0.5, 0.6, float("nan")])
    assert "0.5500 ± 0.6353 [2]" in render(Leaderboard(folder.path), "terminal")


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.81234, 0.00414, "0.8123 ± 0.0041"),
        (0.5, 0.0, "0.5000"),
        (0.5, float("nan"), "0.5000"),
        (2_425_024.0, 0.0, "2.43 M"),
        (9610.0, 0.0, "9610"),
        (12_345.0, 100.0, "12.35 ± 0.10 k"),
        (17_447_454_720.0, 0.0, "17.45 G"),
        (12.3, 0.52, "12.30 ± 0.52"),
        (float("nan"), 0.0, "–"),
        (-0.01, 0.002, "-0.0100 ± 0.0020"),
    ],
)
def test_numbers(value: float, half: float, text: str) -> None:
    assert number(value, half) == text


@pytest.mark.parametrize("field", ["metrics", "splits", "sort", "within"])
def test_one_name_without_a_list_is_refused(field: str) -> None:
    with pytest.raises(UserError, match=rf"{field}.*must be a list"):
        View(**{field: "top1"})
