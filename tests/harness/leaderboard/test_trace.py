"""Every value back to its runs; grouped tables; standard deviations; comparisons of folders."""

from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from subnetbench.harness import compare
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard, View, render
from subnetbench.harness.leaderboard.formats import render_frame, write_frame
from subnetbench.harness.leaderboard.trace import trace
from subnetbench.harness.records import Score
from subnetbench.harness.records.hashes import run_id_of
from subnetbench.harness.records.read import read_records

SPEC = {
    "version": 1,
    "method": "edge_popup",
    "dataset": "emoji",
    "task": "classification",
    "config": {"sparsity": 0.5},
    "data": {},
    "compute": {"processes": 2},
    "inputs": {},
}


def _board(folder: Any) -> Leaderboard:
    return Leaderboard.from_records(read_records(folder.path))


def test_every_value_of_every_cell_has_its_run(folder: Any) -> None:
    values = [0.5, 0.6, 0.7]
    for seed, value in enumerate(values):
        spec = {**SPEC, "seed": seed}
        folder.add(value, seed=seed, run_id=run_id_of(spec), spec=spec, git_sha=f"commit{seed}")
    folder.seeds([0.1, 0.2], method="dense")
    folder.add(None, seed=5, status="failed")
    frame = trace(_board(folder), View(metrics=["top1"]))
    assert frame["value"].tolist() == [*values, 0.1, 0.2]
    own = frame[frame["method"] == "edge_popup"]
    assert own["seed"].tolist() == [0, 1, 2]
    assert own["git_sha"].tolist() == ["commit0", "commit1", "commit2"]
    assert set(own["data_digest"]) == {"d1"}
    assert own["command"].tolist()[1] == (
        "subnetbench run edge_popup emoji --task classification --seed 1 --set sparsity=0.5 --processes 2"
    )
    means = Leaderboard(folder.path).frame(metrics=["top1"]).set_index("method")["mean"]
    for method, part in frame.groupby("method"):
        assert part["value"].mean() == pytest.approx(means[method])


def test_a_trace_goes_into_every_format(folder: Any, tmp_path: Any) -> None:
    folder.seeds([0.5, 0.6], method="=cmd()")
    frame = trace(_board(folder), View(metrics=["top1"]))
    for format in ("terminal", "markdown", "latex", "csv", "json"):
        assert "0.6" in render_frame(frame, format)
    assert "'=cmd()" in render_frame(frame, "csv")
    write_frame(frame, tmp_path / "trace.parquet")
    import pandas as pd

    assert pd.read_parquet(tmp_path / "trace.parquet")["value"].tolist() == [0.5, 0.6]
    with pytest.raises(UserError, match="no such format"):
        write_frame(frame, tmp_path / "trace.doc")


def test_groups_are_tables_with_ranks_of_their_own(folder: Any) -> None:
    for capacity in (0.2, 0.8):
        for method, value in (("prunnet", 0.5), ("switchnet", 0.9)):
            for seed in range(3):
                name = f"capacity {capacity}"
                score = Score(metric="top1", value=value + capacity / 10 + seed / 1000, split="test", variant=name)
                # What is counted is never quite what was configured.
                cost = Score(metric="capacity", value=capacity + seed * 1e-5, variant=name)
                folder.add(seed=seed, method=method, config={"capacity": capacity}, scores=[score, cost])
    board = Leaderboard(folder.path)
    text = render(board, "markdown", View(metrics=["top1"], within=["capacity"]))
    titles = [line for line in text.splitlines() if line.startswith("###")]
    assert len(titles) == 2
    assert "capacity 0.2" in titles[0]
    assert "capacity 0.8" in titles[1]
    frame = board.frame(metrics=["top1"], within=["capacity"])
    assert frame.groupby("variant")["rank"].apply(sorted).tolist() == [[1, 2], [1, 2]]
    assert sorted(board.frame(metrics=["top1"])["rank"]) == [1, 2, 3, 4]


def test_standard_deviations_and_limits_on_request(folder: Any) -> None:
    values = [0.5, 0.6, 0.9]
    folder.seeds(values)
    folder.seeds([0.1, 0.2, 0.3], method="dense")
    std = f" sd {np.std(values, ddof=1):.4f}"
    board = Leaderboard(folder.path)
    assert std in render(board, "terminal", View(metrics=["top1"], spread=True))
    assert std not in render(board, "terminal", View(metrics=["top1"]))
    done = CliRunner().invoke(app, ["leaderboard", str(folder.path), "--limit", "1", "--std", "--format", "markdown"])
    assert done.exit_code == 0, done.output
    assert "1 more rows" in done.output
    assert std in done.output


def test_the_command_line_traces(folder: Any, tmp_path: Any) -> None:
    for seed, value in enumerate([0.25, 0.5]):
        spec = {**SPEC, "seed": seed}
        folder.add(value, seed=seed, run_id=run_id_of(spec), spec=spec)
    for words in ([], ["--format", "csv"], ["--out", str(tmp_path / "trace.csv")]):
        done = CliRunner().invoke(app, ["leaderboard", str(folder.path), "--sources", *words])
        assert done.exit_code == 0, done.output
    assert "subnetbench run edge_popup" in (tmp_path / "trace.csv").read_text()


def test_folders_are_compared_as_they_are(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.5, 0.51, 0.49])
    other_folder.seeds([0.6, 0.61, 0.592])
    differences = compare(folder.path, str(other_folder.path))
    frame = differences.frame()
    assert frame["verdict"].tolist() == ["better"]
    assert frame["difference"].tolist() == pytest.approx([0.1006667], abs=1e-6)
