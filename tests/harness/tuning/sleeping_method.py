"""A plug-in for tests: a method that sleeps instead of training, with a known objective, and data to go with it."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from subnetbench.harness.config import Choice, LogUniform, MethodConfig, Uniform, operating_point
from subnetbench.harness.data import Dataset, Split, TaskData, TensorImages
from subnetbench.harness.errors import RunFailure
from subnetbench.harness.method import Method
from subnetbench.harness.records import Score
from subnetbench.harness.registry import register_dataset, register_method
from subnetbench.harness.training.monitor import Interrupted, Pruned


def quality(x: float, y: float, seed: int = 0) -> float:
    return 1 - (x - 0.3) ** 2 - abs(y - 0.01) + 0.001 * (seed % 7)


@register_method("sleeping")
class Sleeping(Method["Sleeping.Config"]):
    """Sleeps for `seconds`, then scores a function of x and y; above a threshold of x it breaks in a chosen way."""

    tasks = ("classification",)

    class Config(MethodConfig):
        x: Annotated[float, Field(ge=0, le=1, description="searched"), Uniform(0.0, 1.0)] = 0.5
        y: Annotated[float, Field(gt=0, description="searched"), LogUniform(1e-4, 1.0)] = 0.1
        mode: Annotated[Literal["a", "b"], Field(description="searched"), Choice(("a", "b"))] = "a"
        size: Annotated[int, Field(ge=1, description="parameters, in hundreds"), operating_point] = 1
        seconds: Annotated[float, Field(ge=0, description="duration")] = 0.05
        spread: Annotated[float, Field(ge=0, description="share of the duration that depends on x")] = 0.0
        breaks: Annotated[str, Field(description="no, error, nan, oom or kill")] = "no"
        above: Annotated[float, Field(description="value of x above which it breaks")] = 0.0

    def train(self, context):
        config, monitor = self.config, context.monitor
        if config.breaks != "no" and config.x > config.above:
            self._break(context)
        duration = config.seconds * (1 + config.spread * (2 * config.x - 1))
        for epoch in range(1, config.epochs + 1):
            ends = time.monotonic() + duration / config.epochs
            while (left := ends - time.monotonic()) > 0:
                if monitor.stop_requested():
                    raise Interrupted
                time.sleep(min(left, 0.05))
            value = quality(config.x, config.y) * epoch / config.epochs
            if context.world.broadcast_object(monitor.should_prune(epoch, value)):
                raise Pruned
        context.train_seconds = duration
        return nn.ModuleDict({"network": nn.Linear(1, 1)})

    def _break(self, context):
        kind = self.config.breaks
        if kind == "nan":
            raise RunFailure("the loss is nan", reason="nan")
        if kind == "oom":
            raise MemoryError("no memory left")
        if kind == "kill":
            died = context.folder.path / "died"
            died.write_text(died.read_text() + "x" if died.exists() else "x")
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("this configuration never works")

    def rebuild(self, context):
        return nn.ModuleDict({"network": nn.Linear(1, 1)})

    def variants(self, modules, context):
        return []

    def evaluate(self, modules, context, split="test"):
        if split == "test":
            Path(context.folder.path / "test-was-touched").write_text("once\n")
        config = self.config
        value = quality(config.x, config.y, context.seed)
        return [
            Score(metric="top1", value=value, split=split, variant="only"),
            # What the run was really given, to be compared with what the study holds.
            Score(metric="loss", value=config.x, split=split, variant="only"),
            Score(metric="parameters", value=100.0 * config.size, variant="only"),
            Score(metric="macs_executed", value=1000.0 * config.size, variant="only"),
        ]


@register_method("sleeping_pupil")
class SleepingPupil(Sleeping):
    """Sleeps after its teacher did."""

    @classmethod
    def default_inputs(cls, config):
        return {"teacher": {"method": "sleeping", "config": {"x": 0.77}}}


@register_dataset("blank")
class Blank(Dataset):
    """Blank images, for methods that do not look."""

    tasks = ("classification",)
    licence = "CC0"
    citation = "none"
    source = "nowhere"

    def load(self, task):
        def split(name):
            pixels = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
            return Split(name=name, images=pixels, labels=np.array([0, 1, 0, 1]), classes=("a", "b"))

        return TaskData(
            dataset="blank",
            task=task,
            train=split("train"),
            validation=split("validation"),
            test=split("test"),
            image_size=8,
            mean=(0.5,),
            std=(0.5,),
            protocol="blank",
            digest="blank",
        )
