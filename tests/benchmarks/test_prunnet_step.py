"""What the steps of PrunNet and SwitchNet cost beyond their forward and backward passes, in time and memory.

Skipped by default. Run with `OMP_NUM_THREADS=2 pytest tests/benchmarks/test_prunnet_step.py --benchmark-only -s`.
ResNet-18, 64 pixels, batch 16, four subnetworks. Step and passes take turns, and what counts is the median ratio of a
round, by wall clock or by CPU time of the process (where other load takes the processor away), whichever is less.
"""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import ProfilerActivity, profile

from subnetbench.harness.distributed.allocator import keep_freed_memory
from subnetbench.harness.distributed.world import World
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.stages import Progress, Stage
from subnetbench.harness.method.step import Batch, LogSums, Step
from subnetbench.methods.parts.capacity.scores import ScoreMaps, prunable_parameters
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork
from subnetbench.methods.parts.masks.order_statistics import removal_rank
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding, prunnet_resnet, switchnet_resnet
from subnetbench.methods.parts.optim.clipping import clip_in_place

SPARSITIES = (0.2, 0.4, 0.6, 0.8)
WIDTHS = (1.0, 0.8944, 0.7746, 0.6325, 0.4472)
CLASSES = 1000
ROUNDS = 7


@pytest.fixture(autouse=True)
def as_in_a_run():
    keep_freed_memory()


class OneProcess(World):
    """Enough of a world for a step."""

    def __init__(self, device: torch.device) -> None:
        self.size, self.rank, self.device = 1, 0, device

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


class GradientsOnly(Step):
    """A step of given images that leaves the parameters alone: what a plain pass is compared with has no update."""

    def __init__(self, optimizations: Any, images: Tensor, labels: Tensor) -> None:
        super().__init__(
            micro_batches=[Batch(np.arange(len(labels)), images, labels)],
            global_size=len(labels),
            progress=Progress(0, 1, 0, 30, 1),
            optimizations=optimizations,
            world=OneProcess(images.device),
            seed=0,
            stage="train",
            buffers=[],
            logs=LogSums(images.device),
        )

    def update(self, *names: str) -> None:
        pass


class PrunNetProblem:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = ClassifiedEmbedding(prunnet_resnet(18), 512, CLASSES).to(self.device)
        self.network = network.train()
        self.weights = {f"backbone.{name}": p for name, p in prunable_parameters(network.backbone).items()}
        self.others = {name: p for name, p in network.named_parameters() if name not in self.weights}
        self.scores = ScoreMaps(self.weights)
        self.scores.initialise_uniform()
        self.images = torch.randn(16, 3, 64, 64, device=self.device)
        self.labels = torch.randint(0, CLASSES, (16,), device=self.device)
        cls = get_method("prunnet")
        self.method = cls(cls.Config.parse({"preset": "paper", "capacities": [1 - s for s in SPARSITIES]}))
        self.modules = nn.ModuleDict({"network": network, "scores": nn.ModuleList([self.scores])})
        self.forget()

    def forget(self) -> None:
        """Drop the room that earlier steps have made."""
        self.method.enter_stage(self.modules, Stage("train", 30), None)
        self.optimizations = self.method.optimizers(self.modules, Stage("train", 30), None)

    def loss(self, network: nn.Module, parameters: dict[str, Tensor] | None = None) -> Tensor:
        return F.cross_entropy(functional_call(network, parameters or {}, self.images)[1], self.labels)

    def plain_pass(self) -> None:
        torch.autograd.grad(self.loss(self.network), [*self.weights.values(), *self.others.values()])

    def passes(self) -> None:
        for _ in range(1 + len(SPARSITIES)):
            self.plain_pass()

    def step(self) -> None:
        """Sets the gradients of all parameters and scores, by the registered method."""
        self.method.training_step(self.modules, GradientsOnly(self.optimizations, self.images, self.labels))

    def deep_copy_step(self) -> None:
        """The same with a copy of everything a subnetwork, masks inside autograd, and loops over pairs of gradients."""
        with torch.no_grad():
            self.network(self.images)
        found: list[list[Tensor]] = []
        for sparsity in (*SPARSITIES, 0.0):
            dense = sparsity == 0
            network = self.network if dense else copy.deepcopy(self.network)
            scores = self.scores if dense else copy.deepcopy(self.scores)
            weights = {name: p for name, p in network.named_parameters() if name in self.weights}
            masks, masked = {}, {}
            for name, score in scores.as_dict().items():
                magnitude = score.detach().abs()
                threshold = magnitude.flatten().kthvalue(removal_rank(sparsity, score.numel())).values.item()
                masks[name] = (magnitude >= threshold).to(score.dtype)
                # straight-through: the mask's value, the gradient of |score|
                masked[name] = weights[name] * (masks[name] + score.abs() - magnitude)
            inputs = [*weights.values(), *scores.parameters()]
            rest = [p for name, p in network.named_parameters() if name not in weights]
            raw = torch.autograd.grad(self.loss(network, masked), [*inputs, *rest])
            if not dense:
                clip_in_place(raw, 100.0)
            kept = [gradient * mask for gradient, mask in zip(raw[len(weights) :], masks.values(), strict=False)]
            found.append([*raw[: len(weights)], *kept])
        found.insert(0, found.pop())
        for tensors, parameter in zip(
            zip(*found, strict=True), [*self.weights.values(), *self.scores.parameters()], strict=True
        ):
            parameter.grad = integrated_in_loops(tensors)


def integrated_in_loops(gradients: tuple[Tensor, ...], exponent: float = 0.5) -> Tensor:
    n, rows = len(gradients), [gradient.flatten(1) for gradient in gradients]
    order = torch.randperm(n).tolist()
    projected = []
    for i in range(n):
        result = rows[i].clone()
        for j in order:
            products = (rows[i] * rows[j]).sum(dim=1)
            conflicts = (products < 0).nonzero().flatten().tolist()
            if conflicts:
                step = products[conflicts] / (rows[j][conflicts].square().sum(dim=1) + 1e-8)
                result[conflicts] = rows[i][conflicts] - step[:, None] * rows[j][conflicts]
        projected.append(result)
    cosines = [F.cosine_similarity(p.flatten(), g.flatten(), dim=0) for p, g in zip(projected, rows, strict=True)]
    shares = ((torch.stack(cosines) + 1) / 2) ** exponent
    shares = shares / (shares.sum() + 1e-8)
    return (n * sum(share * p for share, p in zip(shares, projected, strict=True))).view_as(gradients[0])


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def median_ratio(work: Callable[[], None], reference: Callable[[], None], rounds: int = ROUNDS) -> dict[str, float]:
    """Times of `work` over those of `reference`, by clock; the two take turns after one round of warming up."""
    pairs = [(timed(reference), timed(work)) for _ in range(rounds + 1)][1:]
    ratios = {clock: median(w[i] / r[i] for r, w in pairs) for i, clock in enumerate(("wall", "cpu"))}
    fastest = [min(pair[which][0] for pair in pairs) for which in (1, 0)]
    print(f"\n{fastest[0]:.3f} s against {fastest[1]:.3f} s at best; ratios {ratios}")
    return ratios


def peak_bytes(work: Callable[[], None]) -> int:
    """The most that `work` has allocated at a time beyond what there was before."""
    work()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    records = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(records, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.timeout(1800)
def test_prunnet_step_against_its_passes(benchmark):
    """At most 1.15 times the plain forward and backward passes of dense network and subnetworks."""
    problem = PrunNetProblem()
    ratios = median_ratio(problem.step, problem.passes)
    benchmark.pedantic(problem.step)
    benchmark.extra_info.update(ratios)
    assert min(ratios.values()) <= 1.15


@pytest.mark.timeout(1800)
def test_prunnet_step_against_deep_copies(benchmark):
    """Faster than the formulation with copies of the network."""
    problem = PrunNetProblem()
    ratios = median_ratio(problem.step, problem.deep_copy_step, rounds=3)
    benchmark.pedantic(problem.step)
    benchmark.extra_info.update(ratios)
    assert min(ratios.values()) < 1


@pytest.mark.timeout(1800)
def test_choosing_masks(benchmark):
    """All thresholds of a step against one k-th value search of PyTorch a tensor and capacity."""
    problem = PrunNetProblem()

    def search() -> None:
        for score in problem.scores.parameters():
            magnitude = score.detach().abs().flatten()
            for sparsity in SPARSITIES:
                magnitude.kthvalue(removal_rank(sparsity, score.numel()))

    ratios = median_ratio(problem.method.subnetworks.select, search)
    benchmark.pedantic(problem.method.subnetworks.select)
    benchmark.extra_info.update(ratios)
    assert min(ratios.values()) <= 0.5


@pytest.mark.timeout(1800)
def test_prunnet_memory(benchmark):
    """At most what one plain pass takes, and N + 2 copies of the prunable weights."""
    problem = PrunNetProblem()
    copies = 4 * sum(weight.numel() for weight in problem.weights.values())
    one_pass = peak_bytes(problem.plain_pass)
    for parameter in [*problem.network.parameters(), *problem.scores.parameters()]:
        parameter.grad = None

    def step() -> None:
        for parameter in [*problem.network.parameters(), *problem.scores.parameters()]:
            parameter.grad = None
        problem.forget()
        problem.step()

    peak = benchmark.pedantic(lambda: peak_bytes(step))
    print(f"\npass {one_pass / 2**20:.0f} MiB, step {peak / 2**20:.0f} MiB, copy {copies / 2**20:.0f} MiB")
    benchmark.extra_info.update(copies=(peak - one_pass) / copies)
    assert peak <= one_pass + (len(SPARSITIES) + 2) * copies


@pytest.mark.timeout(1800)
def test_switchnet_step_against_its_widths(benchmark):
    """At most 1.15 times the plain forward and backward passes of all widths."""
    torch.manual_seed(0)
    network = SlimmableNetwork(
        ClassifiedEmbedding(switchnet_resnet(18), 512, CLASSES),
        WIDTHS,
        torch.zeros(1, 3, 64, 64),
        full_outputs=("projector.linear", "projector.norm"),
        unchanged=("classifier",),
    ).train()
    images, labels = torch.randn(16, 3, 64, 64), torch.randint(0, CLASSES, (16,))
    plain = [network.plain(i) for i in range(len(WIDTHS))]
    cls = get_method("switchnet")
    method = cls(cls.Config.parse({"preset": "paper", "widths": list(WIDTHS)}))
    modules = nn.ModuleDict({"network": network}).train()
    method.enter_stage(modules, Stage("train", 30), None)
    optimizations = method.optimizers(modules, Stage("train", 30), None)

    def passes() -> None:
        for module in plain:
            torch.autograd.grad(F.cross_entropy(module(images)[1], labels), list(module.parameters()))

    def step() -> None:
        method.training_step(modules, GradientsOnly(optimizations, images, labels))

    ratios = median_ratio(step, passes)
    benchmark.pedantic(step)
    benchmark.extra_info.update(ratios)
    assert min(ratios.values()) <= 1.15
