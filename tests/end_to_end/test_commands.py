"""What the README promises, done through the command line."""

import json

import numpy as np
import pytest
import yaml

TINY = ["--set", "network=conv2", "--set", "image_size=8", "--set", "limit_steps=4", "--set", "batch_size=64"]

SWEEP = {
    "name": "small",
    "seeds": [0, 1],
    "defaults": {
        "dataset": "emoji",
        "config": {"network": "conv2", "image_size": 8, "epochs": 2, "limit_steps": 4, "batch_size": 64},
        "compute": {"device": "cpu"},
    },
    "runs": [{"method": "dense"}, {"method": "edge_popup", "grid": {"config.sparsity": [0.5, 0.8]}}],
}


def test_a_sweep_and_all_that_can_be_done_with_it(subnetbench, tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    plan = subnetbench("sweep", "small.yaml", "--dry-run").stdout
    assert "6 of 6 runs to do" in plan
    assert not (tmp_path / "results").exists()

    first = subnetbench("sweep", "small.yaml").stdout
    assert "[6/6] finished" in first
    assert "edge_popup" in first
    again = subnetbench("sweep", "small.yaml").stdout
    assert "6 finished before, 0 failed before, 0 to do" in again
    assert "started" not in again

    rows = json.loads(subnetbench("status", "--json").stdout)
    assert {row["state"] for row in rows} == {"finished"}
    run = next(row["run"] for row in rows if row["run"].startswith("edge_popup-emoji-s1"))

    folder = tmp_path / "results" / "small" / "runs" / run
    assert list(folder.glob("trackers/**/events.out.tfevents*"))
    scores = json.loads(subnetbench("evaluate", run, "--json").stdout)
    top1 = {(s["variant"], s["split"]): s["value"] for s in scores if s["metric"] == "top1"}
    assert 0 <= top1["subnetwork", "test"] <= 1
    validation = subnetbench("evaluate", folder / "model.safetensors", "--split", "validation", "--json")
    assert {s["split"] for s in json.loads(validation.stdout)} == {"validation", ""}

    subnetbench("embed", run, "outputs.npz", "--split", "validation")
    with np.load(tmp_path / "outputs.npz", allow_pickle=False) as archive:
        assert archive["outputs"].shape == (len(archive["labels"]), 8)

    exported = subnetbench("export", run, "--variant", "subnetwork").stdout
    for suffix in (".safetensors", ".pt2", ".onnx"):
        assert (folder / "export" / f"subnetwork{suffix}").exists(), exported

    board = subnetbench("leaderboard", "results/small").stdout
    assert "dense" in board
    assert "edge_popup" in board
    assert "finished" in subnetbench("logs", run, "-n", "5").stdout
    cleaned = subnetbench("clean", "results/small", "--models").stdout
    assert "removed 7 files" in cleaned
    assert "0 to do" in subnetbench("sweep", "small.yaml").stdout


def test_failed_runs_are_kept_apart_and_retried_on_request(subnetbench, tmp_path):
    arguments = ["run", "dense", "emoji", *TINY, "--epochs", "2", "--set", "lr=1e30"]
    failed = subnetbench(*arguments, check=1)
    assert "training loss is" in failed.stderr
    assert "failed" in subnetbench("status", "results/runs").stdout
    again = subnetbench(*arguments, check=1)
    assert "1 failed before, 0 to do" in again.stdout
    retried = subnetbench(*arguments, "--retry-failed", check=1)
    assert "started" in retried.stdout


def test_listings_import_no_torch(subnetbench):
    for arguments in (["--help"], ["methods"], ["datasets"], ["methods", "--json"], ["status"]):
        done = subnetbench(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
        imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "import time:" in line}
        assert "subnetbench.harness.cli.app" in imported
        assert not imported & {"torch", "accelerate", "transformers", "timm"}, arguments


def test_every_command_has_help_with_an_example(subnetbench):
    from subnetbench.harness.cli.app import app

    for command in app.registered_commands:
        name = (command.name or command.callback.__name__).replace("_", "-")
        text = subnetbench(name, "--help").stdout
        assert "subnetbench " in text.replace("Usage: subnetbench", ""), f"{name} has no example"


def test_details_of_a_method_and_a_data_set(subnetbench):
    described = json.loads(subnetbench("methods", "edge_popup", "--json").stdout)
    sparsity = next(field for field in described["config"] if field["name"] == "sparsity")
    assert (sparsity["default"], sparsity["allowed"], sparsity["operating_point"]) == (0.5, ">= 0, < 1", True)
    assert "1911.13299" in described["paper"]
    assert "retrieval" in subnetbench("datasets", "emoji").stdout
    assert "digest" in subnetbench("datasets", "check", "emoji").stdout


def test_doctor(subnetbench):
    findings = {f["name"]: f for f in json.loads(subnetbench("doctor", "--json").stdout)}
    assert {"torch", "GPUs", "faiss", "SLURM", "results"} <= findings.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "dence", "emoji"], "did you mean 'dense'"),
        (["run", "dense", "emogi"], "did you mean 'emoji'"),
        (["run", "edge_popup", "emoji", "--set", "sparcity=0.5"], "did you mean 'sparsity'"),
        (["run", "edge_popup", "emoji", "--set", "sparsity=2"], "config.sparsity"),
        (["run", "dense", "emoji", "--set", "lr"], "must look like name=value"),
        (["run", "dense", "emoji", "--device", "cuda"], "GPU"),
        (["run", "dense", "emoji", "--tracker", "tensorbord"], "did you mean 'tensorboard'"),
        (["run", "dense", "emoji", "--set", "network=conv5"], "did you mean"),
        (["run", "dense", "cifar10"], "cifar-10-batches-py is missing"),
        (["sweep", "absent.yaml"], "cannot be read"),
        (["methods", "supermusk"], "there is no method"),
        (["evaluate", "nothing"], "there is no run 'nothing'"),
        (["leaderboard", "nowhere"], "nowhere"),
        (["clean", "nowhere"], "there is no such folder"),
        (["--plugin", "absent.py", "methods"], "there is no such file"),
    ],
)
def test_bad_input_is_one_message_and_no_traceback(subnetbench, arguments, words):
    done = subnetbench(*arguments, check=None)
    assert done.returncode in (1, 2)
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_output_that_cannot_be_written(subnetbench, tmp_path):
    (tmp_path / "file").write_text("")
    done = subnetbench("run", "dense", "emoji", *TINY, "--out", "file/results", check=2)
    assert "output folder cannot be written" in done.stderr


def test_a_truncated_checkpoint_is_reported_and_kept(subnetbench, tmp_path):
    arguments = ["run", "dense", "emoji", *TINY, "--epochs", "1", "--out", "out"]
    subnetbench(*arguments)
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    (folder / "finished.json").unlink()
    (folder / "model.safetensors").rename(folder / "kept")
    (folder / "last.safetensors").write_bytes((folder / "kept").read_bytes()[:1000])
    done = subnetbench(*arguments, check=1)
    assert "truncated" in done.stderr
    assert (folder / "last.safetensors").stat().st_size == 1000
