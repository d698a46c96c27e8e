"""The base of methods that train an embedding network for retrieval: config, views and optimizer that they share."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import (
    Context,
    LogUniform,
    Optimization,
    Preprocessing,
    Stage,
    TrainableMethod,
    UserValues,
    Variant,
    Weights,
    WeightsConfig,
    fill,
    operating_point,
)
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork, embedding_network
from subnetbench.methods.parts.networks.feature_maps import pretrained_pixel_statistics
from subnetbench.methods.parts.networks.foreign import fill_embedding, raml_fields
from subnetbench.methods.parts.networks.packaged_weights import published_weight_files
from subnetbench.methods.parts.optim.groups import ParameterGroup
from subnetbench.methods.parts.optim.schedules import make_schedule
from subnetbench.methods.parts.views.drawing import CROPS_AND_FLIPS, ViewOptions, coupled_views, draw_views

Pool = Annotated[
    Literal["gem", "gemmp", "mac", "spoc", "max_avg", "no_pool"],
    Field(description="global pooling; max_avg: maximum and mean, twice as long"),
]
Augment = Annotated[
    Literal["none", "crop", "crop_colour", "square"],
    Field(
        description="crop: random resized crops and flips; crop_colour: and jittered colours; square: a random square "
        "as large as the image's shorter side, and flips"
    ),
]
OptimizerName = Annotated[Literal["adamw", "adam", "sgd"], Field(description="optimizer")]
Schedule = Annotated[
    Literal["constant", "cosine", "onecycle", "cyclic", "exponential"],
    Field(description="course of the learning rate over a stage"),
]


class EmbeddingConfig(WeightsConfig):
    """Options of every method that trains one embedding network."""

    network: Annotated[
        str,
        Field(description="backbone: cifar_resnet20, cnn32-64-64, or any torchvision or timm network"),
        operating_point,
    ] = "cifar_resnet8"
    pretrained: Annotated[bool, Field(description="start from the published weights of the backbone")] = False
    image_size: Annotated[
        int | None, Field(ge=8, description="side in pixels [default: the data set's]"), operating_point
    ] = None
    pool: Pool = "gem"
    dim: Annotated[int | None, Field(ge=2, description="embedding size after the whitening layer; null: none")] = 128
    freeze_batch_statistics: Annotated[
        bool, Field(description="keep the running statistics of batch norm (for pretrained backbones)")
    ] = False
    augment: Augment = "crop"
    crop_area: Annotated[float, Field(gt=0, le=1, description="smallest share of the image in a random crop")] = 0.08
    flip: Annotated[float, Field(ge=0, le=1, description="chance of a horizontal flip")] = 0.5
    optimizer: OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-5, 1e-2)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="weight decay"), LogUniform(1e-7, 1e-2)] = 1e-4
    schedule: Schedule = "onecycle"

    def installed_files(self) -> Mapping[str, Path]:
        return published_weight_files(self.network) if self.pretrained else {}


ConfigT = TypeVar("ConfigT", bound=EmbeddingConfig)


class EmbeddingMethod(TrainableMethod[ConfigT]):
    """Trains the module `network`, an `EmbeddingNetwork`; subclasses say by which loss."""

    tasks = ("retrieval",)

    def build(self, context: Context) -> nn.ModuleDict:
        config = self.config
        network = embedding_network(
            config.network,
            image_size=self.preprocessing(context).size,
            channels=context.metadata.channels,
            pool=config.pool,
            dim=config.dim,
            pretrained=config.pretrained,
            freeze_batch_statistics=config.freeze_batch_statistics,
        )
        return nn.ModuleDict({"network": network})

    def preprocessing(self, context: Context) -> Preprocessing:
        config, data = self.config, context.metadata
        mean, std = pretrained_pixel_statistics(config.network) if config.pretrained else (data.mean, data.std)
        mean, std = config.pixel_mean or mean, config.pixel_std or std
        return Preprocessing(size=config.image_size or data.image_size or 224, mean=mean, std=std)

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        return raml_fields(weights)

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        network = modules["network"]
        if isinstance(network, EmbeddingNetwork):
            fill_embedding(network, weights, whole=self.config.imported)
        else:
            fill(network, weights)

    def augment(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Tensor:
        preprocessing, images = self.preprocessing(context), context.data.train.images
        options = self.view_options()
        if options is None:
            return preprocessing(images, indices, context.device)
        # A sample may be several times in a batch: each occurrence gets a view of its own.
        draws = draw_views(
            options, occurrences(indices), 1, len(images), seed=context.seed, counters=(stage.name, epoch)
        )
        return coupled_views(images, indices, draws, {"view": preprocessing}, context.device)["view"].squeeze(1)

    def view_options(self) -> ViewOptions | None:
        """How training images are augmented; None: not at all."""
        config = self.config
        if config.augment == "none":
            return None
        chosen = ViewOptions(mixup_alpha=0) if config.augment == "crop_colour" else CROPS_AND_FLIPS
        square = 1.0 if config.augment == "square" else None
        return replace(chosen, area=(config.crop_area, 1.0), square=square, flip=config.flip)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        network = cast(EmbeddingNetwork, modules["network"])
        groups = network.parameter_groups(config.lr, config.weight_decay)
        return {"weights": Optimization(make_optimizer(config.optimizer, groups), make_schedule(config.schedule))}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        network = modules["network"]
        space = context.spec.run_id
        return [Variant("dense", lambda: network.eval(), self.preprocessing(context), space=space, capacity=1.0)]


def make_optimizer(name: str, groups: list[ParameterGroup], momentum: float = 0.9) -> torch.optim.Optimizer:
    """One of the field's three optimizers over parameter groups with their own rates and decays.

    `momentum` is SGD's.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum)
    result: torch.optim.Optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups)
    return result


def occurrences(indices: np.ndarray) -> np.ndarray:
    """Sample ids in which the second, third, ... occurrence of an index differs from the first."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    first = np.searchsorted(ordered, ordered)
    occurrence = np.empty_like(indices)
    occurrence[order] = np.arange(len(indices)) - first
    result: np.ndarray = indices + occurrence * (2**32)
    return result
