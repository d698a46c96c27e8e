"""What masks cost: a training step of each mask method against the dense step of the same network and batch.

Skipped by default. Run with
`OMP_NUM_THREADS=2 pytest -o addopts="--import-mode=importlib" tests/benchmarks/test_mask_step.py -s`.
Every step is timed beside a dense one, and the median of their ratios counts: what else the machine does hits both
alike. "published" rows are the formulations of the released codes. All share a process that keeps freed memory, as
runs do; `test_keeping_freed_memory` shows what that is worth.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import ProfilerActivity, profile

from subnetbench.harness.distributed.allocator import keep_freed_memory
from subnetbench.methods.parts.masks.magnitude import random_masks
from subnetbench.methods.parts.masks.masked_model import mask_network
from subnetbench.methods.parts.masks.masks import AslpMask, ContinuousMask, EdgePopupMask, FixedMask, Mask, Supermask
from subnetbench.methods.parts.networks.initialisation import kaiming_normal_
from subnetbench.methods.parts.networks.layer_choice import choose_parameters
from subnetbench.methods.parts.networks.small import CifarResNet, small_network

ROUNDS = 12
WHERE = {"conv2": None, "conv6": None, "resnet20": CifarResNet.MASKED}
MASKS: dict[str, Callable[[], Mask]] = {
    "aslp": AslpMask,
    "supermask": Supermask,
    "supermask rescaled": lambda: Supermask(rescale=True),
    "edge_popup": lambda: EdgePopupMask(0.5),
    "continuous_sparsification": ContinuousMask,
    "fixed": FixedMask,
}
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Setting:
    network: str
    batch: int
    allowed: float
    masks: tuple[str, ...]
    device: str = "cpu"
    dtype: torch.dtype | None = None
    compiled: bool = False

    def data(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, 32, 32, generator=generator)
        return images.to(self.device), torch.randint(10, (self.batch,), generator=generator).to(self.device)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return kaiming_normal_(small_network(self.network)).to(self.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype or torch.bfloat16, enabled=self.dtype is not None)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, fused=True)


def dense_step(setting: Setting) -> Callable[[], None]:
    network, (images, labels) = setting.build(), setting.data()
    optimizer = sgd(list(network.parameters()))
    call = torch.compile(network) if setting.compiled else network

    def step() -> None:
        optimizer.zero_grad()
        with setting.autocast():
            loss = F.cross_entropy(call(images), labels)
        loss.backward()
        optimizer.step()

    return step


def masked_step(setting: Setting, name: str) -> Callable[[], None]:
    masked = mask_network(setting.build(), MASKS[name](), WHERE[setting.network])
    if isinstance(masked.mask, FixedMask):
        masked.set_masks(random_masks({n: masked.weight(n) for n in masked.names}, 0.5))
    images, labels = setting.data()
    optimizer = sgd([p for p in masked.parameters() if p.requires_grad])
    generator = torch.Generator(setting.device).manual_seed(0)

    def logits_and_gates(images: Tensor) -> tuple[Tensor, Tensor | None]:
        weights, gate_sum = masked.effective_weights()
        return masked.call(weights, images), gate_sum

    call = torch.compile(logits_and_gates) if setting.compiled else logits_and_gates

    def step() -> None:
        optimizer.zero_grad()
        masked.draw(generator)
        with setting.autocast():
            logits, gate_sum = call(images)
            loss = F.cross_entropy(logits, labels)
        (loss if gate_sum is None else loss + 1e-8 * gate_sum).backward()
        optimizer.step()

    return step


def published_aslp(weight: Tensor, score: Tensor) -> Tensor:
    logits = torch.stack([score.flatten(), torch.zeros(score.numel())])
    return F.gumbel_softmax(logits, tau=1.0, hard=True, dim=0)[0].view(score.shape)


def published_supermask(weight: Tensor, score: Tensor) -> Tensor:
    sampled = torch.bernoulli(torch.sigmoid(score)).detach()
    return sampled + torch.sigmoid(score) - torch.sigmoid(score).detach()


class PublishedEdgePopup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, magnitude, sparsity):
        rank = 1 + round(0.01 * 100 * sparsity * (magnitude.numel() - 1))
        threshold = magnitude.view(-1).kthvalue(rank).values.item()
        return torch.where(magnitude < threshold, torch.zeros_like(magnitude), torch.ones_like(magnitude))

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def published_continuous(weight: Tensor, score: Tensor) -> Tensor:
    return 2.0 * torch.sigmoid(1.0 * score)


PUBLISHED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "aslp": published_aslp,
    "supermask": published_supermask,
    "edge_popup": lambda weight, score: PublishedEdgePopup.apply(score.abs(), 0.5),
    "continuous_sparsification": published_continuous,
}


def published_step(setting: Setting, name: str) -> Callable[[], None]:
    """The released formulation in plain autograd; its frozen weights get gradients that nothing uses."""
    network, (images, labels) = setting.build(), setting.data()
    weights = {c.name: c.parameter for c in choose_parameters(network, WHERE[setting.network])}
    scores = {
        n: nn.Parameter(torch.randn_like(w) if name == "edge_popup" else torch.zeros_like(w))
        for n, w in weights.items()
    }
    soft = name == "continuous_sparsification"
    optimizer = sgd([*scores.values(), *(network.parameters() if soft else [])])

    def step() -> None:
        optimizer.zero_grad()
        masks = {n: PUBLISHED[name](weight, scores[n]) for n, weight in weights.items()}
        logits = functional_call(network, {n: mask * weights[n] for n, mask in masks.items()}, (images,))
        loss = F.cross_entropy(logits, labels)
        (loss + 1e-8 * sum(mask.sum() for mask in masks.values()) if soft else loss).backward()
        optimizer.step()

    return step


def paired_with_dense(
    steps: dict[str, Callable[[], None]], rounds: int = ROUNDS
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of (a dense step, the step beside it), for each kind and round; the two take turns in going first."""
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in steps if name != "dense"}
    for step in steps.values():
        step()
    for number in range(rounds):
        for name, found in pairs.items():
            order = ("dense", name) if number % 2 else (name, "dense")
            seconds = {kind: _timed(steps[kind]) for kind in order}
            found.append((seconds["dense"], seconds[name]))
    return pairs


def _timed(step: Callable[[], None]) -> float:
    _synchronise()
    started = time.perf_counter()
    step()
    _synchronise()
    return time.perf_counter() - started


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(benchmark, setting: Setting, steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The median ratio of each kind's steps to the dense steps beside them."""
    pairs = benchmark.pedantic(paired_with_dense, args=(steps,), rounds=1)
    ratios = {name: median(own / dense for dense, own in found) for name, found in pairs.items()}
    seconds = {name: median(own for _, own in found) for name, found in pairs.items()}
    seconds["dense"] = median(dense for found in pairs.values() for dense, _ in found)
    benchmark.extra_info |= {"setting": str(setting), "seconds": seconds, "ratios": ratios}
    print(f"\n{setting}, {torch.get_num_threads()} threads")
    for name in ("dense", *pairs):
        value = seconds[name]
        print(f"  {name:45s}{1e3 * value:9.1f} ms {ratios.get(name, 1.0):7.3f} {setting.batch / value:9.0f} images/s")
    return ratios


@pytest.fixture
def kept_memory():
    keep_freed_memory()


FROZEN = ("aslp", "supermask", "supermask rescaled", "edge_popup", "fixed")
RESIDUAL = ("continuous_sparsification", "aslp", "edge_popup", "fixed")
SETTINGS = [
    Setting("conv2", 256, 1.10, FROZEN),
    Setting("conv6", 256, 1.05, FROZEN),
    Setting("resnet20", 128, 1.05, RESIDUAL),
]


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("kept_memory")
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.network)
def test_masked_step_against_dense_step_on_the_cpu(benchmark, setting):
    steps = {"dense": dense_step(setting)}
    steps |= {name: masked_step(setting, name) for name in setting.masks}
    steps |= {f"published {name}": published_step(setting, name) for name in setting.masks if name in PUBLISHED}
    ratios = report(benchmark, setting, steps)
    assert not {name: ratios[name] for name in setting.masks if ratios[name] > setting.allowed}


DENSE_STEPS = """
import importlib.util, statistics, sys
spec = importlib.util.spec_from_file_location("steps", sys.argv[1])
sys.modules["steps"] = steps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(steps)
if sys.argv[2] == "kept":
    steps.keep_freed_memory()
step = steps.dense_step(next(s for s in steps.SETTINGS if s.network == sys.argv[3]))
print(statistics.median([steps._timed(step) for _ in range(8)][2:]))
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("network", ["conv2", "conv6"])
def test_keeping_freed_memory(benchmark, network):
    """A dense step in a process that keeps what is freed, against one that gives it back: measured in turn."""

    def seconds(choice):
        command = [sys.executable, "-P", "-c", DENSE_STEPS, __file__, choice, network]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    pairs = benchmark.pedantic(lambda: [(seconds("given back"), seconds("kept")) for _ in range(3)], rounds=1)
    ratio = median(kept / given for given, kept in pairs)
    print(f"\n{network}: seconds a step (given back, kept) {pairs}, ratio {ratio:.3f}")
    assert ratio < 0.9


def peak_bytes(make_step: Callable[[], Callable[[], None]]) -> int:
    """Most memory allocated at once from building the network through three steps, on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = make_step()
        for _ in range(3):
            step()
    allocations = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    allocations.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in allocations))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.network)
def test_memory_beyond_the_dense_step_is_at_most_three_copies_of_the_masked_weights(benchmark, setting):
    chosen = choose_parameters(setting.build(), WHERE[setting.network])
    entries = sum(choice.parameter.numel() for choice in chosen)
    dense = benchmark.pedantic(peak_bytes, args=(lambda: dense_step(setting),), rounds=1)
    print(f"\n{setting.network}, batch {setting.batch}: dense step {dense / 2**20:.1f} MiB")
    for name in setting.masks:
        extra = peak_bytes(lambda name=name: masked_step(setting, name)) - dense
        benchmark.extra_info[name] = copies = extra / (4 * entries)
        print(f"  {name:45s}{extra / 2**20:+9.1f} MiB = {copies:.3f} copies")
        # Sums, counts and other 0-d tensors of each layer come on top.
        assert extra <= 3 * 4 * entries + 512 * len(chosen)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.network)
def test_compiled_steps(benchmark, setting):
    setting = replace(setting, compiled=True)
    names = setting.masks[:1] if setting.device == "cpu" else setting.masks
    report(benchmark, setting, {"dense": dense_step(setting)} | {name: masked_step(setting, name) for name in names})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.network)
def test_masked_step_against_dense_step_on_a_gpu(benchmark, setting, dtype, compiled):
    setting = replace(setting, device="cuda", dtype=dtype, compiled=compiled)
    steps = {"dense": dense_step(setting)} | {name: masked_step(setting, name) for name in setting.masks}
    memory = {}
    for name, step in steps.items():
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
        memory[name] = torch.cuda.max_memory_allocated() / 2**20
    report(benchmark, setting, steps)
    benchmark.extra_info["peak_mebibytes"] = memory
    print("  peak MiB:", {name: round(value) for name, value in memory.items()})
