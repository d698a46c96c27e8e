"""What runs spent, as users see it: in listings, in comparisons, in plans."""

import json

import pytest

SHORT = ["--epochs", "2", "--set", "limit_steps=2", "--set", "batch_size=16"]
SMALL = ["--set", "network=cnn8-8", "--set", "image_size=16", "--set", "dim=16"]
LIMITED = "2 epochs x 1000 images, at most 2 steps each"


def cells(subnetbench, *arguments):
    done = subnetbench("leaderboard", "out", "--json", *arguments)
    return json.loads(done.stdout)["cells"]


@pytest.fixture
def out(subnetbench, tmp_path):
    """A student with its teacher, and a network of the same size trained alone."""
    views = ["--set", "query_limit=32", "--set", "views=2"]
    subnetbench("run", "distillation", "emoji", *SHORT, *SMALL, *views, "--out", "out", "--tracker", "none")
    subnetbench("run", "metric_learning", "emoji", *SHORT, *SMALL, "--out", "out", "--tracker", "none")
    return tmp_path / "out"


def test_spending_in_listings_and_comparisons(subnetbench, out):
    found = cells(subnetbench, "-m", "training_macs", "-m", "input_training_macs", "-m", "images_seen", "-m", "steps")
    spent = {}
    for cell in found:
        spent.setdefault((cell["method"], cell["variant"], cell["gallery_variant"]), {})[cell["metric"]] = cell["mean"]
    alone = spent["metric_learning", "dense", "dense"]
    assert (alone["images_seen"], alone["steps"], alone["input_training_macs"]) == (64, 4, 0)
    student, teacher = spent["distillation", "student", "student"], spent["distillation", "dense", "dense"]
    assert student["input_training_macs"] == teacher["training_macs"] > student["training_macs"] > 0

    # The teacher beside its student stands for the teacher's own budget, and its label says so.
    rows = {(cell["variant"], cell["input_of"]): cell for cell in cells(subnetbench, "-m", "map")}
    beside, own = rows["teacher", "distillation"], rows["dense", ""]
    assert beside["total_training_macs"] == teacher["training_macs"]
    assert beside["budget"].startswith(f"{LIMITED}, ")
    assert beside["budget"] != rows["student", ""]["budget"]
    assert own["budget"].startswith(LIMITED)
    listing = subnetbench("leaderboard", "out", "--metric", "map", "--sort", "total_training_macs").stdout
    assert "MMAC" in listing
    assert "input of" in listing

    sets = ["--a", "method == 'metric_learning'", "--b", "method == 'distillation' and variant == 'student'"]
    refused = subnetbench("compare", "out", *sets, check=2)
    assert "other budget" in refused.stderr
    assert subnetbench("compare", "out", *sets, "--across", "budget", check=None).returncode == 0


def test_a_plan_says_what_training_will_spend(subnetbench, out, tmp_path):
    sweep = {
        "name": "planned",
        "results": "planned",
        "runs": [
            {
                "method": "metric_learning",
                "dataset": "emoji",
                "config": {
                    "epochs": 2,
                    "limit_steps": 2,
                    "batch_size": 16,
                    "network": "cnn8-8",
                    "image_size": 16,
                    "dim": 16,
                },
                "seeds": [0, 1],
            }
        ],
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    planned = json.loads(subnetbench("plan", "sweep.yaml", "--gpus", "1", "--seconds", "0.1", "--json").stdout)
    (recorded,) = {c["mean"] for c in cells(subnetbench, "-m", "training_macs") if c["method"] == "metric_learning"}
    assert planned["training_macs"] == 2 * recorded
    assert "MMAC" in subnetbench("plan", "sweep.yaml", "--gpus", "1", "--seconds", "0.1").stdout
