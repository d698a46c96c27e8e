"""PrunNet and SwitchNet on several ranks: the same bits everywhere, and those of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from subnetbench.harness.runs.state_file import load_state

WITH_BATCH_NORM = [
    ("prunnet", {}),
    ("prunnet", {"gradients": "pcgrad", "heads": "all", "capacity_clip_norm": 0.5}),
    ("switchnet", {"training": "compatible", "capacity_clip_norm": 0.5}),
    ("switchnet", {"training": "sfsc"}),
    ("switchnet", {"training": "multi_independent"}),
]
WITHOUT = [
    ("prunnet", {"freeze_batch_statistics": True}),
    ("prunnet", {"network": "timm/test_vit", "dim": None, "image_size": 32, "lr": 0.01}),
    ("switchnet", {"freeze_batch_statistics": True}),
]
RUNS = [*WITH_BATCH_NORM, *WITHOUT]
PROCESSES = 2

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory, short_spec):
    """For each of `RUNS`, all tensors that each of two ranks ended with. One start of the ranks serves all."""
    folder = tmp_path_factory.mktemp("ranks")
    for i, (name, config) in enumerate(RUNS):
        (folder / f"{i}.json").write_text(short_spec(name, processes=PROCESSES, **config).model_dump_json())
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in RUNS]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    command = [sys.executable, str(Path(__file__).with_name("train_one_rank.py")), str(folder), *ports]
    common = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(PROCESSES), "PYTHONSAFEPATH": "1"}
    ranks = [subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank)}) for rank in range(PROCESSES)]
    try:
        assert [rank.wait(timeout=500) for rank in ranks] == [0] * PROCESSES
    finally:
        for rank in ranks:
            rank.kill()
    return [
        [flat(load_state(folder / f"{i}-{rank}.safetensors")) for rank in range(PROCESSES)] for i in range(len(RUNS))
    ]


def flat(state, prefix=""):
    """All tensors of a nested state by dotted name."""
    found = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            found[prefix + name] = value
        elif isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
    return found


def ended_with(run):
    with run as (method, modules, _):
        return flat({"modules": modules.state_dict(), "state": method.state})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), WITH_BATCH_NORM, ids=str)
def test_two_ranks_equal_one_process_with_the_same_micro_batches(name, config, on_two_ranks, short_run):
    """Weights, scores, running statistics and those of each capacity, bit for bit."""
    first, second = on_two_ranks[RUNS.index((name, config))]
    alone = ended_with(short_run(name, micro_batch_size=8, **config))
    assert alone.keys() == first.keys() == second.keys()
    for key, expected in alone.items():
        assert torch.equal(first[key], second[key]), key
        assert torch.equal(first[key], expected), key


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), WITHOUT, ids=str)
def test_without_batch_statistics_two_ranks_equal_one(name, config, on_two_ranks, short_run):
    first, second = on_two_ranks[RUNS.index((name, config))]
    alone = ended_with(short_run(name, **config))
    start = ended_with(short_run(name, **{**config, "epochs": 0}))
    for key, expected in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], expected, rtol=1e-4, atol=1e-5, msg=key)
    assert any(not torch.equal(start[key], alone[key]) for key in start)
