"""The base of methods that train a classifier: config, augmentation, optimizer and loss that they share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    Images,
    LogUniform,
    Optimization,
    Preprocessing,
    Stage,
    Step,
    TrainableMethod,
    Variant,
    Weights,
    WeightsConfig,
    fill,
    normalise,
    operating_point,
)
from subnetbench.methods.parts.networks.classifiers import classifier
from subnetbench.methods.parts.networks.packaged_weights import published_weight_files
from subnetbench.methods.parts.optim.schedules import LearningRateSchedule, MultiStep, make_schedule
from subnetbench.methods.parts.views.augmentation import crop_flip, crop_flip_parameters

Schedule = Annotated[
    Literal["constant", "cosine", "multistep", "onecycle"],
    Field(description="course of the learning rate over a stage"),
]


# Epochs 80 and 120 of 160, with which lottery tickets were published.
HALF_AND_THREE_QUARTERS = (0.5, 0.75)


class ClassifierConfig(WeightsConfig):
    """Options of every classifier method."""

    left_out_if_unset = (*WeightsConfig.left_out_if_unset, "milestones")

    network: Annotated[
        str,
        Field(description="fc, conv2, conv4, conv6, resnet20, or any timm or torchvision classifier"),
        operating_point,
    ] = "conv4"
    pretrained: Annotated[bool, Field(description="start from the library's published weights")] = False
    image_size: Annotated[
        int | None, Field(ge=8, description="side in pixels [default: the data set's]"), operating_point
    ] = None
    augment: Annotated[bool, Field(description="random crops (padding of an eighth) and horizontal flips")] = True
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-3, 0.5)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1, description="SGD momentum")] = 0.9
    nesterov: Annotated[bool, Field(description="Nesterov momentum")] = False
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty"), LogUniform(1e-6, 1e-2)] = 5e-4
    schedule: Schedule = "cosine"
    milestones: Annotated[
        tuple[float, ...] | None,
        Field(description="multistep: shares of `epochs` at which the rate falls to a tenth [default: 1/2 and 3/4]"),
    ] = None

    def installed_files(self) -> Mapping[str, Path]:
        return published_weight_files(self.network, "DEFAULT") if self.pretrained else {}


ConfigT = TypeVar("ConfigT", bound=ClassifierConfig)


class ClassifierMethod(TrainableMethod[ConfigT]):
    """Trains the module `network` by cross-entropy; subclasses say what the network is and what is trained."""

    tasks = ("classification",)

    def plain_network(self, context: Context) -> nn.Module:
        """The configured network with fresh weights."""
        config = self.config
        size = self.preprocessing(context).size
        return classifier(config.network, context.metadata, size=size, pretrained=config.pretrained)

    def preprocessing(self, context: Context) -> Preprocessing:
        config, data = self.config, context.metadata
        mean, std = config.pixel_mean or data.mean, config.pixel_std or data.std
        return Preprocessing(size=config.image_size or data.image_size or 224, mean=mean, std=std)

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        fill(modules["network"], weights)

    def augment(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Tensor:
        images = context.data.train.images
        if self.config.augment:
            return self.augmented(images, indices, context, stage.name, epoch)
        return self.preprocessing(context)(images, indices, context.device)

    def augmented(self, images: Images, indices: np.ndarray, context: Context, stage: str, epoch: int) -> Tensor:
        """Random crops (padding of an eighth) and flips that belong to (seed, stage, epoch, sample)."""
        preprocessing = self.preprocessing(context)
        padding = preprocessing.size // 8
        offsets, flips = crop_flip_parameters(context.seed, stage, epoch, indices, padding)
        pixels = crop_flip(preprocessing.resized(images, indices, context.device), offsets, flips, padding)
        return normalise(pixels, preprocessing.mean, preprocessing.std)

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        logits = modules["network"](batch.images)
        correct = (logits.detach().argmax(1) == batch.labels).float().mean()
        return {"loss": F.cross_entropy(logits.float(), batch.labels), "accuracy": correct}

    def sgd(self, parameters: Any, **replaced: Any) -> Optimization:
        """Fused SGD with the config's learning rate, momentum, decay and schedule, unless `replaced`."""
        config = self.config
        options = {
            "lr": config.lr,
            "momentum": config.momentum,
            "nesterov": config.nesterov,
            "weight_decay": config.weight_decay,
            "fused": True,
            **replaced,
        }
        return Optimization(torch.optim.SGD(parameters, **options), self.schedule())

    def schedule(self) -> LearningRateSchedule:
        """The course of the learning rate that the config names."""
        config = self.config
        if config.schedule != "multistep":
            return make_schedule(config.schedule)
        return MultiStep(tuple(round(share * config.epochs) for share in config.milestones or HALF_AND_THREE_QUARTERS))

    def variant(self, name: str, network: nn.Module, context: Context, **details: Any) -> Variant:
        """A plain classifier as a variant."""
        return Variant(name, lambda: network.eval(), self.preprocessing(context), **details)
