"""What the report shows is what the leaderboard says and what the run folders hold."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from subnetbench.harness.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard, View
from subnetbench.harness.records import Score
from subnetbench.harness.report import Options, report_content
from subnetbench.harness.report.content import Content
from subnetbench.harness.report.runs import Detail
from subnetbench.harness.report.selection import better_of, costs_of, in_order, matrices_of, pareto_front, row_names


def test_figures_are_those_of_the_leaderboard(results: Path, content: Content) -> None:
    frame = Leaderboard(results).frame()
    told = {
        (row["method"], row["variant"], row["gallery_variant"], row["config"], metric): cell
        for row in content["rows"]
        for metric, cell in row["cells"].items()
    }
    assert len(told) == len(frame)
    for line in frame.itertuples():
        if not line.method.isidentifier():
            continue  # its markup is shown, its control characters are not
        cell = told[line.method, line.variant, line.gallery_variant, line.config, line.metric]
        assert cell["mean"] == pytest.approx(line.mean, rel=1e-6)
        assert len(cell["values"]) == len(cell["runs"]) == line.seeds
        assert cell.get("rank", 0) == line.rank
        if line.seeds > 1:
            assert cell["half"] == pytest.approx((line.high - line.low) / 2, rel=1e-5, abs=1e-9)


def test_every_figure_leads_to_its_runs(content: Content) -> None:
    for row in content["rows"]:
        for metric, cell in row["cells"].items():
            runs = [content["runs"][place] for place in cell["runs"]]
            assert [run["seed"] for run in runs] == sorted(run["seed"] for run in runs)
            assert all(run["status"] == "finished" for run in runs)
            assert cell["mean"] == pytest.approx(np.mean(cell["values"]), rel=1e-5), metric


def test_runs_bring_their_log_curves_environment_and_command(content: Content) -> None:
    run = next(run for run in content["runs"] if run["run_id"] == "run-0001-s0")
    assert run["log"].endswith("finished edge_popup with seed 0")
    steps, values = run["history"]["validation/top1"]
    assert steps == tuple(range(1, 13))
    assert values == tuple(sorted(values))
    assert run["versions"]["torch"] == "2.15.0"
    assert run["command"].startswith("subnetbench run edge_popup emoji --task classification --seed 0 --set ")
    assert run["git_sha"].startswith("0123456789")


def test_unfinished_runs_and_trials_are_told_apart(content: Content) -> None:
    assert content["counts"] | {"records": 0} == {
        "records": 0,
        "finished": 37,
        "failed": 1,
        "pruned": 0,
        "partial": 0,
        "trials": 15,
        "superseded": 0,
        "skipped": 0,
    }
    assert [content["runs"][place]["status"] for place in content["unfinished"]] == ["failed"]
    (study,) = content["studies"]
    assert study["varied"] == ["lr", "mode"]
    assert [trial["trial"] for trial in study["trials"]] == list(range(15))
    assert {trial["status"] for trial in study["trials"]} == {"finished", "pruned", "failed"}
    assert [trial["trial"] for trial in study["trials"] if trial["value"] is None] == [4]


def test_a_publication_names_no_machine_and_has_no_logs(results: Path) -> None:
    content = report_content(results, Options(detail=Detail(private=False)))
    text = json.dumps(content)
    assert "machine-one" not in text
    assert str(results) not in text
    assert "finished edge_popup with seed" not in text


def test_contents_are_plain_json(content: Content) -> None:
    json.dumps(content, allow_nan=False)


def test_control_characters_do_not_reach_the_page(content: Content) -> None:
    text = json.dumps(content, ensure_ascii=False)
    assert "\\u001b" not in text
    assert "\u202e" not in text
    assert "window.hacked" in text  # markup does, as text


def test_a_record_cannot_point_at_other_folders(samples: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "log.txt").write_text("secret")
    results = samples.Results(tmp_path / "results")
    results.run([Score(metric="top1", value=0.5, split="test", variant="full")], run_id="run")
    file = tmp_path / "results" / "records" / "run-1.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    place = table.column_names.index("run_id")
    pq.write_table(table.set_column(place, "run_id", pa.array(["../../secret"] * len(table))), file)
    (tmp_path / "results" / "runs").mkdir()
    (run,) = report_content(tmp_path / "results")["runs"]
    assert run["log" if "log" in run else "run_id"] != "secret"
    assert run["log"] == ""


def test_a_view_limits_the_report(results: Path) -> None:
    content = report_content(results, Options(view=View(metrics=["top1"], where="sparsity >= 0.7")))
    assert {row["method"] for row in content["rows"]} == {"edge_popup", "magnitude"}
    assert {metric for row in content["rows"] for metric in row["cells"]} == {"top1"}


def test_failed_runs_alone_make_a_report_too(samples: ModuleType, tmp_path: Path) -> None:
    results = samples.Results(tmp_path)
    results.run([], status="failed", error_kind="nan", error="the loss is nan")
    content = report_content(tmp_path)
    assert content["rows"] == content["contests"] == []
    assert [content["runs"][place]["error"] for place in content["unfinished"]] == ["the loss is nan"]


def test_the_seeds_of_a_trial_are_one_trial(samples: ModuleType, tmp_path: Path) -> None:
    results = samples.Results(tmp_path)
    for trial, values in enumerate(((0.5, 0.7), (0.4, 0.4))):
        for seed, value in enumerate(values):
            score = Score(metric="top1", value=value, split="validation", variant="full")
            results.run([score], study="s", trial=trial, seed=seed, config={"lr": 10.0**-trial})
    (study,) = report_content(tmp_path)["studies"]
    assert [trial["value"] for trial in study["trials"]] == [0.6, 0.4]
    assert [trial["settings"] for trial in study["trials"]] == [[1.0], [0.1]]


def test_no_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is recorded"):
        report_content(tmp_path)


def test_the_front_holds_what_nothing_beats(content: Content) -> None:
    rows = [row for row in content["rows"] if "macs_nonzero" in row["cells"] and "top1" in row["cells"]]
    front = pareto_front(content, rows, "macs_nonzero", "top1")

    def beats(a: dict, b: dict) -> bool:
        gains = [
            better_of(content, name) * (a["cells"][name]["mean"] - b["cells"][name]["mean"])
            for name in ("macs_nonzero", "top1")
        ]
        return min(gains) >= 0 and max(gains) > 0

    assert front
    assert [row for row in rows if not any(beats(other, row) for other in rows)] == sorted(front, key=rows.index)


def test_costs_are_those_that_differ(content: Content) -> None:
    of_task = {
        contest["task"]: [row for row in content["rows"] if row["contest"] == place]
        for place, contest in enumerate(content["contests"])
    }
    assert costs_of(content, of_task["classification"])[:2] == ["macs_nonzero", "sparsity"]
    assert costs_of(content, of_task["text_image"])[0] == "lifetime_macs_small_world"
    (matrix,) = matrices_of(of_task["retrieval"])
    assert len(matrix) == 25
    assert matrices_of(of_task["classification"]) == []
    assert row_names(of_task["text_image"]) == ["cascade, m=100", "cascade, m=50", "cascade, m=25", "cascade, m=10"]
    assert in_order(["level 10", "level 2", "base"]) == ["base", "level 2", "level 10"]


def test_reading_the_content_imports_no_torch(results: Path) -> None:
    code = (
        "import sys; from subnetbench.harness.report import report_content, render_page; "
        f"render_page(report_content({str(results)!r})); print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
