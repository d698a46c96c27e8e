"""Options of methods that train one embedding network for several capacities."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from subnetbench.harness.method import Choice, LogUniform, Uniform, operating_point
from subnetbench.methods.parts.bases.embedder import EmbeddingConfig
from subnetbench.methods.parts.capacity.integration import IntegrationRule

Share = Annotated[float, Field(gt=0, le=1)]


class SharedSpaceConfig(EmbeddingConfig):
    """Options of every method that trains several capacities of one network."""

    paper_defaults = {
        "image_size": 224,
        "augment": "square",
        "resize_ratio": 256 / 224,
        "interpolation": "bicubic",
        "epochs": 30,
        "batch_size": 128,
        "schedule": "multistep",
        "recalibration": "exponential",
    }

    capacities: Annotated[
        tuple[Share, ...],
        Field(min_length=1, description="shares of the backbone's weights that the subnetworks keep"),
        operating_point,
    ] = (0.8, 0.6, 0.4, 0.2)
    pool: Annotated[Literal["spoc", "gem", "mac"], Field(description="global pooling; spoc: the mean")] = "spoc"
    dim: Annotated[int | None, Field(ge=2, description="embedding size; null: the pooled features, no projector")] = 256
    projector_layers: Annotated[int, Field(ge=0, description="hidden layers of the projector")] = 0
    prior_bias: Annotated[
        bool, Field(description="start the biases of projector and classifier at -ln 99 (published but for ResNets)")
    ] = False
    loss: Annotated[
        Literal["softmax", "arcface", "cosface"], Field(description="cross-entropy over classes, with which margin")
    ] = "softmax"
    scale: Annotated[float, Field(gt=0, description="arcface, cosface: factor of the cosines")] = 30.0
    margin: Annotated[float, Field(ge=0, description="arcface, cosface: margin")] = 0.3
    clip_norm: Annotated[float | None, Field(gt=0, description="largest norm of the combined gradient")] = 100.0
    augment: Annotated[
        Literal["none", "crop", "crop_colour", "square"],
        Field(description="crop: random resized crops; square: image_size pixels of the resized image; and flips"),
    ] = "crop"
    resize_ratio: Annotated[
        float, Field(ge=1, description="shorter side before the square is cut, in multiples of image_size")
    ] = 1.0
    interpolation: Annotated[
        Literal["bilinear", "bicubic"], Field(description="filter by which evaluation resizes images")
    ] = "bilinear"
    samples_per_class: Annotated[
        int | None, Field(ge=2, description="class-balanced batches with so many images a class; null: random batches")
    ] = None
    optimizer: Annotated[Literal["adamw", "adam", "sgd"], Field(description="optimizer")] = "sgd"
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-4, 0.5)] = 0.1
    backbone_lr_multiplier: Annotated[
        float, Field(ge=0, description="learning rate of the backbone and its scores, in multiples of lr")
    ] = 1.0
    weight_decay: Annotated[float, Field(ge=0, description="weight decay"), LogUniform(1e-6, 1e-2)] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum of SGD")] = 0.9
    schedule: Annotated[
        Literal["constant", "cosine", "multistep", "onecycle"],
        Field(description="course of the learning rate over a stage"),
    ] = "cosine"  # type: ignore[assignment]
    milestones: Annotated[
        tuple[float, ...], Field(description="multistep: shares of a stage at which the rate falls to a tenth")
    ] = (5 / 30, 10 / 30, 20 / 30)
    warmup_epochs: Annotated[float, Field(ge=0, description="epochs over which the rate rises from 0")] = 0.0
    recalibration: Annotated[
        Literal["cumulative", "exponential", "none"],
        Field(description="batch-norm statistics of each capacity: mean over batches, running mean, or the dense ones"),
    ] = "cumulative"
    recalibration_images: Annotated[
        int | None, Field(ge=1, description="training images for it, drawn at random; null: all")
    ] = 4096

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.capacities)) < len(self.capacities):
            raise ValueError(f"capacities: {list(self.capacities)} has one of them twice")
        return self


class CapacityConfig(SharedSpaceConfig):
    """The same where each capacity has a gradient of its own, and they are combined."""

    gradients: Annotated[
        IntegrationRule,
        Field(description="how gradients of capacities combine: the paper's integration, a plain sum, or PCGrad"),
        Choice(("conflict_aware", "sum", "pcgrad")),
    ] = "conflict_aware"
    exponent: Annotated[
        float,
        Field(ge=0, description="conflict_aware: how much less a gradient counts that had to be bent"),
        Uniform(0.0, 2.0),
    ] = 0.5
    per_filter: Annotated[bool, Field(description="conflict_aware: project convolutions filter by filter")] = True
    agreement: Annotated[
        Literal["cosine", "dot"], Field(description="conflict_aware: how a bent gradient is compared with itself")
    ] = "cosine"
    heads: Annotated[
        Literal["dense", "all"],
        Field(description="who trains projector, classifier and norms: the dense network, or all capacities summed"),
    ] = "dense"
    capacity_clip_norm: Annotated[
        float | None, Field(gt=0, description="largest norm of one subnetwork's gradient, before they are combined")
    ] = 100.0
