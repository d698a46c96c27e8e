"""What the report shows is what the leaderboard says and what the run folders hold."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard, View
from subnetbench.harness.records import Score
from subnetbench.harness.report import Options, report_content
from subnetbench.harness.report.figure_rows import better_of, costs_of, in_order, matrices_of, pareto_front, row_names
from subnetbench.harness.report.runs import Detail
from subnetbench.harness.report.types import ReportContent, Row


def test_values_are_those_of_the_leaderboard(results: Path, content: ReportContent) -> None:
    frame = Leaderboard(results).frame()
    shown = {
        (row.method, row.variant, row.gallery_variant, row.config, metric): cell
        for row in content.rows
        for metric, cell in row.cells.items()
    }
    assert len(shown) == len(frame)
    for line in frame.itertuples():
        if not line.method.isidentifier():
            continue  # its markup is shown, its control characters are not
        cell = shown[line.method, line.variant, line.gallery_variant, line.config, line.metric]
        assert cell.mean == pytest.approx(line.mean, rel=1e-6)
        assert len(cell.values) == len(cell.runs) == line.seeds
        assert cell.rank == line.rank
        assert cell.ranks == (line.rank_best, line.rank_worst)
        if np.isfinite(line.high):
            assert cell.half == pytest.approx((line.high - line.low) / 2, rel=1e-5, abs=1e-9)


def test_every_value_leads_to_its_runs(content: ReportContent) -> None:
    for row in content.rows:
        for metric, cell in row.cells.items():
            runs = [content.runs[at] for at in cell.runs]
            assert [run.seed for run in runs] == sorted(run.seed for run in runs)
            assert all(run.status == "finished" for run in runs)
            assert cell.mean == pytest.approx(np.mean(cell.values), rel=1e-5), metric


def test_runs_bring_their_log_curves_environment_and_command(content: ReportContent) -> None:
    run = next(run for run in content.runs if run.run_id.startswith("run-0001-s0"))
    assert run.log.endswith("finished edge_popup with seed 0")
    steps, values = run.history["validation/top1"]
    assert steps == tuple(range(1, 13))
    assert values == tuple(sorted(values))
    assert run.versions["torch"] == "2.15.0"
    assert run.command.startswith("subnetbench run edge_popup emoji --task classification --seed 0 --set ")
    assert run.git_sha.startswith("0123456789")


def test_unfinished_runs_and_trials_are_kept_apart(content: ReportContent) -> None:
    assert content.counts | {"records": 0} == {
        "records": 0,
        "finished": 37,
        "failed": 1,
        "pruned": 0,
        "partial": 0,
        "trials": 15,
        "superseded": 0,
        "skipped": 0,
    }
    assert [content.runs[at].status for at in content.unfinished] == ["failed"]
    (study,) = content.studies
    assert study.varied == ["lr", "mode"]
    assert [trial.trial for trial in study.trials] == list(range(15))
    assert {trial.status for trial in study.trials} == {"finished", "pruned", "failed"}
    assert [trial.trial for trial in study.trials if trial.value is None] == [4]


def test_a_publication_names_no_machine_and_has_no_logs(results: Path) -> None:
    content = report_content(results, Options(detail=Detail(private=False)))
    text = json.dumps(content.to_json())
    assert "machine-one" not in text
    assert str(results) not in text
    assert "finished edge_popup with seed" not in text


def test_contents_are_plain_json(content: ReportContent) -> None:
    json.dumps(content.to_json(), allow_nan=False)


def test_control_characters_do_not_reach_the_page(content: ReportContent) -> None:
    text = json.dumps(content.to_json(), ensure_ascii=False)
    assert "\\u001b" not in text
    assert "\u202e" not in text
    assert "window.hacked" in text  # markup does, as text


def test_a_record_cannot_point_at_other_folders(samples: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "log.txt").write_text("secret")
    results = samples.Results(tmp_path / "results")
    results.run([Score(metric="top1", value=0.5, split="test", variant="full")], run_id="run", spec={})
    file = tmp_path / "results" / "records" / "run-1.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    column = table.column_names.index("run_id")
    pq.write_table(table.set_column(column, "run_id", pa.array(["../../secret"] * len(table))), file)
    (tmp_path / "results" / "runs").mkdir()
    (run,) = report_content(tmp_path / "results").runs
    assert run.log != "secret"
    assert run.log == ""


def test_a_view_limits_the_report(results: Path) -> None:
    content = report_content(results, Options(view=View(metrics=["top1"], where="sparsity >= 0.7")))
    assert {row.method for row in content.rows} == {"edge_popup", "magnitude"}
    assert {metric for row in content.rows for metric in row.cells} == {"top1"}


def test_failed_runs_alone_make_a_report_too(samples: ModuleType, tmp_path: Path) -> None:
    results = samples.Results(tmp_path)
    results.run([], status="failed", error_kind="nan", error="the loss is nan")
    content = report_content(tmp_path)
    assert content.rows == content.contests == []
    assert [content.runs[at].error for at in content.unfinished] == ["the loss is nan"]


def test_the_seeds_of_a_trial_are_one_trial(samples: ModuleType, tmp_path: Path) -> None:
    results = samples.Results(tmp_path)
    for trial, values in enumerate(((0.5, 0.7), (0.4, 0.4))):
        for seed, value in enumerate(values):
            score = Score(metric="top1", value=value, split="validation", variant="full")
            results.run([score], study="s", trial=trial, seed=seed, config={"lr": 10.0**-trial})
    (study,) = report_content(tmp_path).studies
    assert [trial.value for trial in study.trials] == [0.6, 0.4]
    assert [trial.settings for trial in study.trials] == [[1.0], [0.1]]


def test_rows_by_other_code_and_times_of_several_machines(samples: ModuleType, tmp_path: Path) -> None:
    results = samples.Results(tmp_path)
    for code in ("a" * 16, "b" * 16):
        for seed in range(2):
            device = "X" if code.startswith("a") or seed else "Y"
            scores = [Score(metric="top1", value=0.5, split="test", variant="full")]
            results.run(scores, seed=seed, code_digest=code, device=device)
    content = report_content(tmp_path)
    times = {row.code: row.cells["wall_seconds"] for row in content.rows}
    assert set(times) == {"aaaaaaaa", "bbbbbbbb"}
    assert (times["aaaaaaaa"].apart, times["bbbbbbbb"].apart, times["bbbbbbbb"].mean) == ("", "device", None)
    assert times["bbbbbbbb"].to_json()["apart"] == "device"
    assert row_names(content.rows) == ["dense, aaaaaaaa", "dense, bbbbbbbb"]
    assert {group.code_digest for group in content.groups} == {"a" * 16, "b" * 16}
    assert any("not averaged together, because these differ: code" in note for note in content.notes)


def test_no_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is recorded"):
        report_content(tmp_path)


def test_the_front_holds_what_nothing_beats(content: ReportContent) -> None:
    rows = [row for row in content.rows if "macs_nonzero" in row.cells and "top1" in row.cells]
    front = pareto_front(content, rows, "macs_nonzero", "top1")

    def beats(a: Row, b: Row) -> bool:
        gains = [
            better_of(content, name) * (a.cells[name].mean - b.cells[name].mean) for name in ("macs_nonzero", "top1")
        ]
        return min(gains) >= 0 and max(gains) > 0

    assert front
    assert [row for row in rows if not any(beats(other, row) for other in rows)] == sorted(front, key=rows.index)


def test_costs_are_those_that_differ(content: ReportContent) -> None:
    of_task = {
        contest.task: [row for row in content.rows if row.contest == at] for at, contest in enumerate(content.contests)
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
