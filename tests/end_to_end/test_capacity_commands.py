"""What a user does with a network of several capacities: the matrix, capacities never trained, export."""

import json

import pytest

OPTIONS = ["--set", "epochs=1", "--set", "limit_steps=3", "--set", "batch_size=16", "--set", "image_size=16"]
OPTIONS += ["--set", "dim=16", "--set", "capacities=[0.6,0.2]", "--set", "recalibration_images=32"]


@pytest.mark.timeout(600)
def test_from_training_to_export(subnetbench, tmp_path):
    done = subnetbench("run", "prunnet", "emoji", *OPTIONS, "--device", "cpu", "--tracker", "none")
    assert "mean cross-test" in done.stdout
    (run,) = (tmp_path / "results" / "runs" / "runs").iterdir()

    shown = subnetbench("matrix", run.name[:16], "-m", "recall_at_4", "--json", "--draw", "matrix.svg")
    (matrix,) = json.loads(shown.stdout)
    assert matrix["variants"] == ["dense", "capacity_0.6", "capacity_0.2"]
    assert all(0 <= value <= 1 for row in matrix["mean"] for value in row)
    assert (tmp_path / "matrix.svg").read_text().startswith("<?xml")

    chosen = ("--variant", "dense", "--variant", "capacity_0.35")
    scores = json.loads(subnetbench("evaluate", run.name, *chosen, "--json").stdout)
    pairs = {(score["variant"], score["gallery_variant"]) for score in scores if score["metric"] == "map"}
    assert pairs > {("capacity_0.35", "dense"), ("dense", "capacity_0.35"), ("capacity_0.35", "capacity_0.35")}

    subnetbench("export", run.name, "--variant", "capacity_0.35", "--format", "safetensors")
    assert (run / "export" / "capacity_0.35.safetensors").stat().st_size > 100_000
    assert "did you mean 'capacity_0.6'" in subnetbench("export", run.name, "--variant", "capacty_0.6", check=2).stderr
