"""What the harness costs: an epoch against a bare loop, a short run beyond its training, and the command line."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from subnetbench.harness.core.rng import numpy_generator
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.preprocessing import normalise
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.method.stages import Stage
from subnetbench.harness.runs.folder import find_runs
from subnetbench.harness.runs.state import Heartbeat
from subnetbench.harness.training.loop import TrainingLoop
from subnetbench.methods.parts.networks.small import small_network
from subnetbench.methods.parts.views.augmentation import crop_flip, crop_flip_parameters

PROGRAM = Path(sys.executable).with_name("subnetbench")
BATCH, STEPS = 64, 6


@pytest.fixture
def cifar_sized():
    """Random images of CIFAR's size, enough for a short epoch."""
    generator = torch.Generator().manual_seed(0)

    def split(name, n):
        pixels = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 10, (n,), generator=generator).numpy()
        return Split(name=name, images=TensorImages(pixels), labels=labels, classes=tuple("abcdefghij"))

    return TaskData(
        dataset="random",
        task="classification",
        train=split("train", BATCH * STEPS),
        validation=split("validation", 64),
        test=split("test", 64),
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        protocol="random",
        digest="random",
    )


def bare_epoch(data, network, optimizer, epoch):
    """The same epoch written by hand: the same augmentation, the same steps, nothing else."""
    network.train()
    images, labels = data.train.images.tensor, torch.from_numpy(data.train.labels)
    order = numpy_generator(0, "order", "train", epoch).permutation(len(labels))
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        offsets, flips = crop_flip_parameters(0, "train", epoch, indices, 4)
        batch = crop_flip(images[torch.from_numpy(indices)], offsets, flips, 4)
        loss = F.cross_entropy(network(normalise(batch, data.mean, data.std)), labels[torch.from_numpy(indices)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.timeout(900)
def test_an_epoch_costs_hardly_more_than_a_bare_loop(benchmark, cifar_sized):
    config = {"network": "conv4", "epochs": 100, "batch_size": BATCH, "evaluate_every": 0}
    spec = resolve("dense", "cifar10", config=config, compute={"threads": 2})
    world = open_world(spec.compute)
    method = get_method("dense")(get_method("dense").Config.parse(spec.config))
    loop = TrainingLoop(method, Context(spec=spec, data=cifar_sized, world=world))
    loop.modules = method.build(loop.context)
    stage = Stage("train", 100)
    loop._start_stage(stage)
    network = small_network("conv4")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True)
    ratios = []

    def pair(epoch):
        began = time.perf_counter()
        loop._run_epoch(stage)
        middle = time.perf_counter()
        bare_epoch(cifar_sized, network, optimizer, epoch)
        ratios.append((middle - began) / (time.perf_counter() - middle))
        loop.epoch, loop.step_in_epoch = loop.epoch + 1, 0

    pair(0)
    ratios.clear()
    benchmark.pedantic(lambda: [pair(epoch) for epoch in range(1, 6)], rounds=1)
    world.close()
    print(f"\nepoch through the harness / bare loop: {sorted(round(r, 3) for r in ratios)}")
    assert statistics.median(ratios) <= 1.05


@pytest.mark.timeout(900)
def test_a_short_run_costs_under_a_second_beyond_its_training(benchmark, tmp_path):
    sweep = {
        "name": "many",
        "seeds": list(range(50)),
        "slots": 2,
        "defaults": {
            "dataset": "emoji",
            "config": {"network": "conv2", "image_size": 8, "epochs": 1, "batch_size": 64, "limit_steps": 2},
            "compute": {"device": "cpu"},
        },
        "runs": [{"method": "dense"}],
    }
    (tmp_path / "many.yaml").write_text(json.dumps(sweep))
    began = time.perf_counter()
    command = [PROGRAM, "sweep", "many.yaml"]
    benchmark.pedantic(lambda: subprocess.run(command, cwd=tmp_path, check=True, capture_output=True), rounds=1)
    wall = time.perf_counter() - began
    runs = find_runs(tmp_path / "results" / "many")
    assert len(runs) == 50
    training = sum((run.heartbeat() or Heartbeat()).train_seconds for run in runs)
    # Two slots: a run occupies one of them for twice its share of the wall time.
    beyond = (2 * wall - training) / 50
    print(f"\n50 runs in {wall:.1f} s: {beyond:.2f} s a run beyond training")
    assert beyond < 1.0


@pytest.mark.parametrize(("arguments", "limit"), [(["--help"], 0.3), (["methods"], 0.6), (["datasets"], 0.6)])
def test_listings_answer_at_once(benchmark, arguments, limit):
    benchmark.pedantic(
        lambda: subprocess.run([PROGRAM, *arguments], check=True, capture_output=True), rounds=7, warmup_rounds=1
    )
    print(f"\n{' '.join(arguments)}: {benchmark.stats['min']:.3f} s at least, {benchmark.stats['median']:.3f} s median")
    assert benchmark.stats["min"] < limit
