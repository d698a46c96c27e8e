"""`run` and `sweep` on SLURM from Python and from the command line, against stub clients."""

import pytest
import yaml
from typer.testing import CliRunner

from subnetbench import run, status, sweep
from subnetbench.harness import api
from subnetbench.harness.cli.app import app

TINY = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2}


@pytest.fixture
def file(stub, tmp_path, monkeypatch):
    """A sweep file of three runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    content = {
        "name": "small",
        "seeds": [0, 1, 2],
        "resources": {"minutes": 20},
        "runs": [{"method": "dense", "dataset": "emoji", "config": TINY, "resources": {"memory_gb": 2}}],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_dry_run_says_which_jobs_there_would_be(file, stub):
    planned = sweep(file, on="slurm", dry_run=True)
    assert planned.counts == {"to do": 3}
    (array,) = planned.submission.arrays
    assert array.job == ""
    assert [run_id for (run_id,) in array.jobs] == [each.id for each in planned.runs]
    assert {"#SBATCH --time=20", "#SBATCH --mem=2048M"} <= set(array.directives)
    assert not any(call.startswith("sbatch") for call in stub.calls())
    assert not planned.results.exists()


def test_a_sweep_is_submitted_once_followed_and_cancelled(file, stub):
    submitted = sweep(file, on="slurm")
    assert submitted.counts == {"submitted": 3}
    assert submitted.submission.arrays[0].job == "101"
    assert sweep(file, on="slurm").counts == {"queued": 3}
    stub.set_queue(job101_0="RUNNING")
    frame = status(["results/small"]).frame
    assert frame["state"].tolist() == ["starting", "queued", "queued"]
    assert frame["job"].tolist() == ["101_0", "101_1", "101_2"]
    assert api.cancel("small") == ["101_0", "101_1", "101_2"]
    assert not status().active


def test_one_run_is_submitted_with_what_it_starts_from(file, stub):
    tiny = {"network": "conv2", "image_size": 8, "epochs": 1}
    done = run("distillation", "emoji", config={"image_size": 16, "dim": 16}, on="slurm")
    assert done.status == "submitted"
    assert [each.status for each in done.inputs] == ["submitted"] * len(done.inputs)
    assert done.inputs
    assert run("dense", "emoji", config=tiny, on="slurm", dry_run=True).status == "to do"


def test_what_is_refused_is_returned(file, stub):
    (stub.folder / "refusal").write_text("sbatch: error: invalid partition")
    refused = sweep(file, on="slurm")
    assert refused.counts == {"not submitted": 3}
    assert "invalid partition" in refused.submission.faults[0]


def test_the_command_line_says_the_same(file, stub):
    planned = CliRunner().invoke(app, ["sweep", str(file), "--on", "slurm", "--dry-run"])
    assert "array 1: 3 jobs" in planned.stdout
    assert "would submit 3 runs as 3 jobs in 1 arrays" in planned.stdout
    done = CliRunner().invoke(app, ["sweep", str(file), "--on", "slurm"])
    assert "submitted 3 runs as 3 jobs in 1 arrays" in done.stdout
    assert "job numbers: 101" in done.stdout
    again = CliRunner().invoke(app, ["sweep", str(file), "--on", "slurm"])
    assert "skipped 3: in the queue already" in again.stdout
    quiet = CliRunner().invoke(app, ["sweep", str(file), "--on", "slurm", "--quiet"])
    assert "skipped" not in quiet.stdout
    (stub.folder / "refusal").write_text("sbatch: error: invalid partition")
    stub.set_queue(job101_0="CANCELLED")
    refused = CliRunner().invoke(app, ["sweep", str(file), "--on", "slurm"])
    assert refused.exit_code == 1
    assert "invalid partition" in refused.stderr
