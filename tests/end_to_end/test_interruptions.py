"""Runs survive being killed at any instant: the same command resumes and ends with the same bits."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import find_runs
from subnetbench.harness.runs.state import Heartbeat
from subnetbench.harness.runs.state_file import load_state

TRAINING = ["--set", "network=conv2", "--set", "image_size=8", "--set", "batch_size=16", "--epochs", "2"]


def processes_of(folder: Path) -> list[int]:
    """Rank processes that hold files of a results folder open (their log)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                targets = {os.readlink(link) for link in (entry / "fd").iterdir()}
            except OSError:
                continue
            if any(target.startswith(str(folder)) and target.endswith("log.txt") for target in targets):
                found.append(int(entry.name))
    return found


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def scores_of(subnetbench, results):
    (run,) = find_runs(results)
    rows = json.loads(subnetbench("evaluate", run.path, "--json").stdout)
    timing = ("latency", "throughput", "peak")
    return {(r["variant"], r["split"], r["metric"]): r["value"] for r in rows if not r["metric"].startswith(timing)}


def spent_by(results):
    """What the record says was spent."""
    (row,) = read_records([results]).runs.to_pylist()
    return {name: row[name] for name in ("training_macs", "input_training_macs", "images_seen", "steps")}


def weights_of(results):
    (run,) = find_runs(results)
    return load_state(run.model_file)["modules"]


@pytest.mark.parametrize("processes", [1, 2])
def test_sigkill_at_any_moment_changes_no_bit(subnetbench, start, tmp_path, processes, monkeypatch):
    # Checkpoints after every step, so that a short run meets many of them.
    monkeypatch.setenv("SUBNETBENCH_CHECKPOINT_SECONDS", "0")
    arguments = ["run", "edge_popup", "emoji", *TRAINING, "--processes", str(processes), "--tracker", "none", "--out"]
    subnetbench(*arguments, "straight")

    moments = random.Random(processes)
    killed = tmp_path / "killed"
    for _ in range(2):
        driver = start(*arguments, "killed")
        wait_for(lambda: processes_of(killed) and list(killed.glob("runs/*/last.safetensors")))
        time.sleep(moments.uniform(0.0, 0.6))
        for pid in [*processes_of(killed), driver.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        driver.wait()
        wait_for(lambda: not processes_of(killed))
    subnetbench(*arguments, "killed")

    straight, resumed = weights_of(tmp_path / "straight"), weights_of(killed)
    assert straight.keys() == resumed.keys()
    for name in straight:
        assert torch.equal(straight[name], resumed[name]), name
    assert scores_of(subnetbench, tmp_path / "straight") == scores_of(subnetbench, killed)
    assert spent_by(tmp_path / "straight") == spent_by(killed)
    assert spent_by(killed)["training_macs"] > 0


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_obeyed_and_the_same_command_resumes(subnetbench, start, tmp_path, asked):
    arguments = ["run", "edge_popup", "emoji", *TRAINING, "--epochs", "8", "--tracker", "none", "--out", "out"]
    driver = start(*arguments)
    wait_for(lambda: any((run.heartbeat() or Heartbeat()).step > 3 for run in find_runs(tmp_path / "out")))
    os.killpg(driver.pid, asked)
    assert driver.wait(timeout=60) == 1
    (run,) = find_runs(tmp_path / "out")
    assert run.state() == "interrupted"
    assert run.last_checkpoint.exists()
    assert "the same command resumes" in (tmp_path / "output.txt").read_text()
    assert not processes_of(tmp_path / "out")
    subnetbench(*arguments)
    assert run.state() == "finished"
    assert not run.last_checkpoint.exists()


def test_a_run_resumes_when_a_rank_is_killed_and_the_others_are_left_alone(subnetbench, start, tmp_path):
    (tmp_path / "two.yaml").write_text(
        """
name: two
defaults: {dataset: emoji, config: {network: conv2, image_size: 8, batch_size: 16}, compute: {device: cpu}}
runs:
  - {method: edge_popup, config: {epochs: 20}, compute: {processes: 2}}
  - {method: dense, config: {epochs: 2}}
"""
    )
    driver = start("sweep", "two.yaml", "--slots", "3", "--tracker", "none")
    results = tmp_path / "results" / "two"

    def training():
        return [
            r for r in find_runs(results) if r.run_id.startswith("edge") and (r.heartbeat() or Heartbeat()).step > 2
        ]

    wait_for(training)
    (run,) = training()
    victim = max(processes_of(run.path))
    os.kill(victim, signal.SIGKILL)
    peers = {*processes_of(run.path)} - {victim}
    wait_for(lambda: not peers & {*processes_of(run.path)}, seconds=60)
    assert driver.wait(timeout=240) == 0
    states = {r.run_id.split("-")[0]: r.state() for r in find_runs(results)}
    assert states == {"edge_popup": "finished", "dense": "finished"}
