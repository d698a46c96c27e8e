"""What a `ts_aug` step of resolution distillation costs beyond its two networks, and what cached targets save.

Skipped by default. Run with
`OMP_NUM_THREADS=2 pytest -o addopts="--import-mode=importlib" tests/benchmarks/test_distillation_step.py -s`.
The step draws and renders coupled, mixed views from uint8 images, runs the teacher without gradients and the student
forward and backward; the networks alone do the latter two on ready images. Times are CPU times of the process, and
the fastest run of each counts, so that other load on the machine matters little. "published" lets the teacher keep
its graph.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.methods.parts.losses.distillation import raml
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork, embedding_network
from subnetbench.methods.parts.views.drawing import ViewOptions, coupled_views, draw_views

ROUNDS = 6
SPLIT_SIZE = 256


@dataclass(frozen=True)
class Setting:
    architecture: str
    student_size: int
    teacher_size: int
    images: int
    views: int
    teacher_architecture: str | None = None

    def student(self) -> EmbeddingNetwork:
        return self._network(self.architecture, self.student_size).train()

    def teacher(self) -> EmbeddingNetwork:
        return self._network(self.teacher_architecture or self.architecture, self.teacher_size).eval()

    @staticmethod
    def _network(architecture: str, size: int) -> EmbeddingNetwork:
        torch.manual_seed(0)
        return embedding_network(architecture, image_size=size, freeze_batch_statistics=True)


SETTINGS = [Setting("resnet50", 64, 128, images=2, views=8), Setting("resnet18", 48, 96, images=8, views=8)]
# Pairs of published protocols, at about half of their sizes: ResNet-50 from 448 to 224 pixels (RAML), and ResNet-101 at 256
# teaching ResNet-18 at 64 (D3still on Stanford Online Products).
CACHED = [
    Setting("resnet50", 128, 256, images=1, views=4),
    Setting("resnet18", 32, 128, images=2, views=8, teacher_architecture="resnet101"),
]


def steps_of(setting: Setting) -> dict[str, Callable[[], object]]:
    student, teacher = setting.student(), setting.teacher()
    sizes = {"student": setting.student_size, "teacher": setting.teacher_size}
    roles = {role: Preprocessing(size, (0.5,) * 3, (0.25,) * 3) for role, size in sizes.items()}
    side = setting.teacher_size
    pixels = torch.randint(0, 256, (SPLIT_SIZE, 3, side, side), dtype=torch.uint8)
    split, indices, occasion = TensorImages(pixels), np.arange(setting.images), {"seed": 0, "counters": ("step", 0)}

    def views(*names: str) -> dict[str, Tensor]:
        draws = draw_views(ViewOptions(), indices, setting.views, SPLIT_SIZE, **occasion)
        return coupled_views(split, indices, draws, {name: roles[name] for name in names or roles})

    ready = views()

    def embed(network: EmbeddingNetwork, images: Tensor) -> Tensor:
        return network(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def networks_alone() -> None:
        with torch.no_grad():
            embed(teacher, ready["teacher"])
        embed(student, ready["student"]).sum().backward()

    def whole_step(keep_graph: bool = False) -> None:
        batch = views()
        with torch.set_grad_enabled(keep_graph):
            target = embed(teacher, batch["teacher"])
        sum(raml(embed(student, batch["student"]), target).values()).backward()

    def cached_step() -> None:
        sum(raml(embed(student, views("student")["student"]), known).values()).backward()

    known = embed(teacher, ready["teacher"]).detach()
    unit = embed(student, ready["student"]).detach(), known

    def losses_alone() -> None:
        sum(raml(unit[0].requires_grad_(), unit[1]).values()).backward()

    return {
        "networks": networks_alone,
        "step": whole_step,
        "views": views,
        "losses": losses_alone,
        "published step": lambda: whole_step(keep_graph=True),
        "cached step": cached_step,
    }


def fastest_in_turn(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of the fastest run of each, all taking turns."""
    fastest = dict.fromkeys(steps, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:
                fastest[name] = min(fastest[name], time.process_time() - started)
    return fastest


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.architecture)
def test_a_distillation_step_costs_little_more_than_its_networks(benchmark, setting):
    seconds = benchmark.pedantic(fastest_in_turn, args=(steps_of(setting),), rounds=1)
    print(f"\n{setting}, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"  {name:16s}{1e3 * value:9.1f} ms {value / seconds['networks']:7.3f} of the networks")
    benchmark.extra_info |= {"setting": str(setting), "seconds": seconds}
    assert seconds["step"] <= 1.1 * seconds["networks"]
    assert seconds["losses"] <= 0.02 * seconds["step"]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("setting", CACHED, ids=lambda setting: setting.teacher_architecture or setting.architecture)
def test_cached_targets_double_the_epochs_of_an_hour(benchmark, setting):
    """Steps whose teacher embeddings are read from the cache (`view_bank`) against steps that compute them.

    Both draw and render the student's views and train the student; the first pass over the bank, which fills the
    cache, costs as much as the teacher's part of the epochs without one, once.
    """
    steps = steps_of(setting)
    seconds = benchmark.pedantic(
        fastest_in_turn, args=({name: steps[name] for name in ("step", "cached step")},), rounds=1
    )
    ratio = seconds["step"] / seconds["cached step"]
    print(f"\n{setting}, {torch.get_num_threads()} threads: {ratio:.2f} times the epochs an hour")
    benchmark.extra_info |= {"setting": str(setting), "seconds": seconds, "ratio": ratio}
    assert ratio >= 2
