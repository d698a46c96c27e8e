"""The sweeps that ship: the quickstart convinces, and every method runs."""

from pathlib import Path

import pytest

from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.registry import listing
from subnetbench.harness.run_folder import find_runs
from subnetbench.harness.sweep_file import read_sweep
from subnetbench.harness.tasks import PRIMARY_METRIC

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"


# Files of searches, in `tuning`, are read by `subnetbench tune`, and checked with it.
@pytest.mark.parametrize(
    "file", sorted(set(SWEEPS.rglob("*.yaml")) - set(SWEEPS.glob("tuning/*"))), ids=lambda f: f.stem
)
def test_every_sweep_file_expands(file):
    content = read_sweep(file)
    assert content.name == file.stem
    assert content.expand()


@pytest.mark.timeout(900)
def test_every_row_of_the_quickstart_clears_its_trivial_baseline(subnetbench, tmp_path):
    done = subnetbench("sweep", SWEEPS / "quickstart.yaml", timeout=900)
    assert "rank" in done.stdout
    board = Leaderboard(tmp_path / "results" / "quickstart")
    rows = board.frame(metrics=list(PRIMARY_METRIC.values()))
    specs = read_sweep(SWEEPS / "quickstart.yaml").expand()
    assert set(rows["method"]) == {spec.method for spec in specs}
    for row in rows.itertuples():
        assert row.seeds == 3, row
        assert row.clears_trivial, (
            f"{row.method}: {row.mean:.3f} in {row.low:.3f}..{row.high:.3f}, trivial {row.trivial:.3f}"
        )


def test_every_registered_method_runs_once(subnetbench, tmp_path):
    file = SWEEPS / "every_method.yaml"
    assert {spec.method for spec in read_sweep(file).expand()} == {entry.name for entry in listing("method")}
    subnetbench("sweep", file, "--tracker", "none", timeout=600)
    assert {run.state() for run in find_runs(tmp_path / "results" / "every_method")} == {"finished"}
