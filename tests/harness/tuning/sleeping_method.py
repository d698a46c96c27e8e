"""A plug-in for tests: a method that sleeps instead of training, with a known objective, and data to go with it."""

import os
import signal
import time
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from subnetbench.harness.core.config import Choice, LogUniform, MethodConfig, Uniform, operating_point
from subnetbench.harness.core.errors import RunFailure
from subnetbench.harness.data.dataset import Dataset
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.registry import register_dataset
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.method.base import TrainableMethod
from subnetbench.harness.method.registry import register_method
from subnetbench.harness.records import Score

NAP_SECONDS = 0.05


def quality(x: float, y: float, seed: int = 0) -> float:
    """Between 0.2 and 1, as the score of a real method."""
    return 0.99 - ((x - 0.3) ** 2 + abs(y - 0.01)) / 2 + 0.001 * (seed % 7)


@register_method("sleeping")
class Sleeping(TrainableMethod["Sleeping.Config"]):
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

    def build(self, context):
        config = self.config
        if config.breaks != "no" and config.x > config.above:
            self._break(context)
        return nn.ModuleDict({"network": nn.Linear(1, 1)})

    def optimizers(self, modules, stage, context):
        return {}

    def plan_epoch(self, modules, stage, epoch, context):
        """As many steps as there are short naps in an epoch, so that a stop request is heard soon."""
        self._nap = self.config.seconds * (1 + self.config.spread * (2 * self.config.x - 1)) / self.config.epochs
        steps = max(int(self._nap / NAP_SECONDS), 1)
        self._nap /= steps
        return [np.zeros(1, dtype=np.int64)] * steps

    def training_step(self, modules, step):
        time.sleep(self._nap)

    def validate(self, modules, stage, context):
        self.state["epochs_done"] = self.state.get("epochs_done", 0) + 1
        return {"top1": quality(self.config.x, self.config.y) * self.state["epochs_done"] / self.config.epochs}

    def _break(self, context):
        kind = self.config.breaks
        if kind == "nan":
            raise RunFailure("the loss is nan", reason="nan")
        if kind == "oom":
            raise MemoryError("no memory left")
        if kind == "kill":
            died = context.scratch / "died"
            died.write_text(died.read_text() + "x" if died.exists() else "x")
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("this configuration never works")

    def variants(self, modules, context):
        return []

    def evaluate(self, modules, context, split="test"):
        if split == "test":
            (context.scratch / "test-was-touched").write_text("once\n")
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
