"""What retrieval metrics cost: against the bare search, against sorting, and against pytorch-metric-learning.

Skipped by default. Run on two CPU threads with
`OMP_NUM_THREADS=2 pytest -o addopts="--import-mode=importlib" tests/benchmarks/test_retrieval_speed.py -s`.
The rivals take turns and the fastest run of each counts, so that other load on the machine hits all of them alike.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import retrieval_metrics
from subnetbench.harness.evaluation.search import score_blocks

DIMENSIONS = 512
ROUNDS = 3
MOST_MEMORY = 2 * 10**9


def embeddings(images: int, images_a_class: int) -> tuple[torch.Tensor, np.ndarray]:
    """Unit vectors around class centres, about as hard to search as a learned embedding."""
    generator = torch.Generator().manual_seed(0)
    classes = images // images_a_class
    labels = torch.randint(classes, (images,), generator=generator)
    centres = torch.randn(classes, DIMENSIONS, generator=generator)
    noise = torch.randn(images, DIMENSIONS, generator=generator)
    return torch.nn.functional.normalize(centres[labels] + 2.5 * noise, dim=1), labels.numpy()


def fastest_in_turn(rivals: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of the fastest run of each."""
    fastest = dict.fromkeys(rivals, float("inf"))
    for _ in range(rounds):
        for name, rival in rivals.items():
            started = time.perf_counter()
            rival()
            fastest[name] = min(fastest[name], time.perf_counter() - started)
    return fastest


def report(benchmark, title: str, rivals: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    seconds = benchmark.pedantic(fastest_in_turn, args=(rivals, rounds), rounds=1)
    print(f"\n{title}, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"  {name:40s}{value:8.2f} s")
    benchmark.extra_info |= {"title": title, "seconds": seconds}
    return seconds


def search_only(query: torch.Tensor, gallery: torch.Tensor, k: int | None) -> None:
    for _, scores in score_blocks(query, gallery):
        if k is not None:
            scores.topk(k, dim=1)


def map_by_argsort(query: torch.Tensor, gallery: torch.Tensor, labels: np.ndarray) -> float:
    """Average precision with a sort of the gallery for every query; query i is gallery item i."""
    precisions = []
    for part, scores in score_blocks(query, gallery):
        for i, row in zip(range(part.start, part.stop), scores.numpy(), strict=True):
            order = np.argsort(-row)
            hit = labels[order[order != i]] == labels[i]
            if hit.any():
                precisions.append(np.mean(np.cumsum(hit)[hit] / (np.flatnonzero(hit) + 1)))
    return float(np.mean(precisions))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("images_a_class", [4, 20, 200])
def test_metrics_cost_little_more_than_the_search(benchmark, images_a_class):
    x, labels = embeddings(20_000, images_a_class)
    relevance = Relevance.from_labels(labels)
    k = max(100, int(relevance.counts.max()))
    rivals = {
        f"blocked product with top {k}": lambda: search_only(x, x, k),
        "default metrics, full rankings": lambda: retrieval_metrics(x, x, relevance),
    }
    search, metrics = report(benchmark, f"20,000 x 20,000, {images_a_class} a class", rivals).values()
    assert metrics <= 1.5 * search


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("images_a_class", [4, 20, 200])
def test_full_rankings_without_sorting_them(benchmark, images_a_class):
    """The matrix product is the same for both and set apart."""
    x, labels = embeddings(20_000, images_a_class)
    query = x[:5000]
    relevance = Relevance.from_labels(labels[:5000], labels, own=np.arange(5000))
    values = []
    rivals = {
        "blocked product": lambda: search_only(query, x, None),
        "map": lambda: values.append(retrieval_metrics(query, x, relevance, ["map"])["map"]),
        "map with an argsort for every query": lambda: values.append(map_by_argsort(query, x, labels)),
    }
    title = f"5,000 x 20,000, {images_a_class} a class"
    product, ours, theirs = report(benchmark, title, rivals, rounds=5).values()
    print(f"  {theirs / ours:.1f} times as fast, {(theirs - product) / (ours - product):.1f} beyond the product")
    assert values == pytest.approx([values[0]] * 10, abs=1e-5)
    assert theirs - product >= 5 * (ours - product)


SOP_SIZED = """
import json, time, numpy, torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import retrieval_metrics

torch.set_num_threads({threads})
arrays = numpy.load("{file}")
x, labels = torch.from_numpy(arrays["x"]), arrays["labels"]
def library():
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k=1000, device=torch.device("cpu"))
    return calculator.get_accuracy(x, torch.from_numpy(labels))
def ours(*names):
    return retrieval_metrics(x, x, Relevance.from_labels(labels), names)
started = time.perf_counter()
found = {call}
seconds = time.perf_counter() - started
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps(dict(found, seconds=seconds, bytes=int(status["VmHWM"].split()[0]) * 1024)))
"""
RECALLS = "'recall_at_1', 'recall_at_10', 'recall_at_100', 'recall_at_1000', 'r_precision', 'map_at_r'"
RIVALS = {
    "recall at 1, 10, 100, 1000, MAP@R": f"ours({RECALLS})",
    "the same and mAP of full rankings": f"ours({RECALLS}, 'map')",
    "AccuracyCalculator, k = 1000": "library()",
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("images", [6_050, 60_502])
def test_a_test_set_of_the_size_of_sop_against_pytorch_metric_learning(benchmark, images, tmp_path):
    """Each in a process of its own, so that its peak of memory is its own."""
    x, labels = embeddings(images, 5)
    file = tmp_path / "embeddings.npz"
    np.savez(file, x=x.numpy(), labels=labels)

    def measure() -> dict[str, dict[str, float]]:
        codes = {
            name: SOP_SIZED.format(threads=torch.get_num_threads(), file=file, call=call)
            for name, call in RIVALS.items()
        }
        command = [sys.executable, "-c"]
        return {
            name: json.loads(subprocess.run([*command, code], capture_output=True, check=True).stdout)
            for name, code in codes.items()
        }

    found = benchmark.pedantic(measure, rounds=1)
    print(f"\n{images:,} x {images:,} x {DIMENSIONS}, 5 a class, {torch.get_num_threads()} threads")
    for name, figures in found.items():
        print(f"  {name:40s}{figures['seconds']:8.2f} s{figures['bytes'] / 1e9:8.2f} GB at most")
    benchmark.extra_info |= {"images": images, "found": found}
    ours, full, theirs = found.values()
    assert ours["recall_at_1"] == pytest.approx(theirs["precision_at_1"], abs=1e-4)
    assert ours["map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-4)
    assert ours["recall_at_1"] <= ours["recall_at_10"] <= ours["recall_at_100"] <= ours["recall_at_1000"]
    assert full["map"] >= full["map_at_r"]
    assert max(ours["bytes"], full["bytes"]) < MOST_MEMORY
    if images > 10_000:  # below, starting up is most of it
        assert ours["seconds"] <= theirs["seconds"]


PEAK = """
import resource, torch
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import retrieval_metrics

labels = torch.randint({classes}, ({images},)).numpy()
x = torch.randn({images}, {dimensions})
retrieval_metrics(x, x, Relevance.from_labels(labels))
# The resource usage of a child begins with its parent's peak; the address space's own high-water mark does not.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("images", [20_000, 60_502])
def test_memory_is_bounded(benchmark, images):
    """Of the whole process, torch and the embeddings included."""
    code = PEAK.format(images=images, classes=images // 100, dimensions=64)
    done = benchmark.pedantic(
        subprocess.run, args=([sys.executable, "-c", code],), kwargs={"capture_output": True, "check": True}, rounds=1
    )
    peak = int(done.stdout)
    print(f"\n{images:,} x {images:,}: at most {peak / 1e9:.2f} GB")
    assert peak < MOST_MEMORY
