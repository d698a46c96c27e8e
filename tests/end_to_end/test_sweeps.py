"""The sweeps that ship: the quickstart convinces, and every method runs."""

from pathlib import Path

import pytest

from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.execution.sweep_file import read_sweep
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.method.registry import METHODS
from subnetbench.harness.runs.folder import find_runs

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"


# Files of searches, in `tuning`, are read by `subnetbench tune`, and checked with it.
@pytest.mark.parametrize(
    "file", sorted(set(SWEEPS.rglob("*.yaml")) - set(SWEEPS.glob("tuning/*"))), ids=lambda f: f.stem
)
def test_every_sweep_file_expands(file):
    content = read_sweep(file)
    assert content.name == file.stem
    assert content.expand()


@pytest.mark.timeout(1500)
def test_the_quickstart_beats_what_needs_no_network(subnetbench, tmp_path):
    """All rows clear chance with their whole interval; most classifiers and embeddings are above the best baseline."""
    done = subnetbench("sweep", SWEEPS / "quickstart.yaml", timeout=1500)
    assert "rank" in done.stdout
    board = Leaderboard(tmp_path / "results" / "quickstart")
    rows = board.frame(metrics=list(PRIMARY_METRIC.values()))
    specs = read_sweep(SWEEPS / "quickstart.yaml").expand()
    assert set(rows["method"]) == {spec.method for spec in specs}
    chance = {"top1": 0.2, "recall_at_1": 0.005, "text_to_image_recall_at_10": 10 / 160}
    assert set(rows["metric"]) == set(chance)
    for row in rows.itertuples():
        assert row.seeds == 3, row
        assert row.low > chance[row.metric], f"{row.method}: {row.mean:.3f} in {row.low:.3f}..{row.high:.3f}"
    assert set(rows["baseline"]) == {"linear_pixels", "whitened_pixels", "neighbours_words"}
    above = (rows["mean"] > rows["trivial"]).groupby(rows["metric"]).mean()
    assert above[["top1", "recall_at_1"]].min() > 0.5, rows[["method", "metric", "mean", "trivial"]]


@pytest.mark.timeout(900)
def test_every_registered_method_runs_once(subnetbench, tmp_path):
    pytest.importorskip("torch_pruning", reason="structured_pruning needs the extra `pruning`")
    file = SWEEPS / "every_method.yaml"
    assert {spec.method for spec in read_sweep(file).expand()} == {entry.name for entry in METHODS.listing()}
    subnetbench("sweep", file, "--tracker", "none", timeout=900)
    assert {run.state() for run in find_runs(tmp_path / "results" / "every_method")} == {"finished"}
