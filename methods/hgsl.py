"""HGSL: distances to learned class centres, where only the nearest wrong centres count (Dong et al. 2021)."""

from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Choice,
    Context,
    LogUniform,
    Optimization,
    Stage,
    Step,
    Uniform,
    register_method,
)
from subnetbench.methods.parts.bases.embedder import (
    Augment,
    EmbeddingConfig,
    EmbeddingMethod,
    OptimizerName,
    Pool,
    Schedule,
    make_optimizer,
)
from subnetbench.methods.parts.losses.hgsl import HardGlobalSoftmin
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.optim.groups import ParameterGroup
from subnetbench.methods.parts.optim.schedules import make_schedule


@register_method("hgsl")
class Hgsl(EmbeddingMethod["Hgsl.Config"]):
    """A softmin over distances to class centres, restricted to the k nearest, with a term that pushes centres apart.

    With k = 1, as published, only samples whose own centre is not the nearest one are trained on, and the learned
    scale alpha is no more than a factor of the loss. The published margin cancels for every k, so there is none.
    The embedding is the maximum and the mean of each channel, without a layer behind it.

    Differences of `preset: paper` (ResNet-50 with stride 1 in its last stage, 280 pixels, 100 epochs of 84 images):
    centres are a ratio V / g and may leave the unit sphere (`centres: ratio`); one clip over all parameters, so that
    alpha's gradient takes step size from the backbone (`clip: joint`); the rate never falls, because the published
    milestones lie behind the last epoch (`schedule: constant`). Not reproduced: choosing the epoch by the test
    set, exponentials that overflow, and a command line that crashes before the first step.
    """

    paper = "Dong et al., Improved fine-grained object retrieval with Hard Global Softmin Loss objective, SPIC 2021"
    tiny = {"image_size": 16}

    class Config(EmbeddingConfig):
        paper_defaults = {
            "network": "hgsl_resnet50",
            "pretrained": True,
            "image_size": 280,
            "epochs": 100,
            "batch_size": 84,
            "centres": "ratio",
            "clip": "joint",
            "schedule": "constant",
        }

        pool: Pool = "max_avg"
        dim: Annotated[int | None, Field(ge=2, description="embedding size after a linear layer; null: none")] = None
        augment: Augment = "square"
        k: Annotated[
            int | Literal["all"],
            Field(description="centres in the softmin's denominator, 1 or more nearest ones; all: every class"),
            Choice((1, 2, 3, 5, "all")),
        ] = 1
        alpha_init: Annotated[
            float, Field(gt=0, description="distances are scaled by 10 / alpha"), Uniform(0.05, 0.5)
        ] = 0.1
        learn_alpha: Annotated[bool, Field(description="train alpha")] = True
        alpha_lr: Annotated[float, Field(gt=0, description="learning rate of alpha")] = 1e-5
        decorrelation_weight: Annotated[
            float, Field(ge=0, description="weight of the mean absolute product of two centres"), LogUniform(1e-3, 1.0)
        ] = 0.1
        centres: Annotated[
            Literal["unit", "ratio"], Field(description="unit: on the sphere; ratio: V / g, free to leave it")
        ] = "unit"
        centre_lr: Annotated[
            float | None, Field(gt=0, description="learning rate of the centres; null: that of the network")
        ] = None
        clip_norm: Annotated[float | None, Field(gt=0, description="largest norm of the gradient; null: any")] = 5.0
        clip: Annotated[
            Literal["per_role", "joint"],
            Field(description="clip network, centres and alpha each on its own, or all together"),
        ] = "per_role"
        optimizer: OptimizerName = "sgd"
        lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-3, 1e-2)] = 0.005
        weight_decay: Annotated[
            float, Field(ge=0, description="weight decay of everything, alpha too"), LogUniform(1e-7, 1e-2)
        ] = 5e-6
        schedule: Schedule = "cosine"

        @model_validator(mode="after")
        def _compares_with_something(self) -> Self:
            if self.k != "all" and self.k < 1:
                raise ValueError(f"k: {self.k} nearest centres are none; allowed: 1 or more, or all")
            return self

    def build(self, context: Context) -> nn.ModuleDict:
        config = self.config
        modules = super().build(context)
        modules["loss"] = HardGlobalSoftmin(
            context.metadata.num_classes,
            cast(EmbeddingNetwork, modules["network"]).dim,
            k=config.k,
            alpha=config.alpha_init,
            learn_alpha=config.learn_alpha,
            centres=config.centres,
            decorrelation_weight=config.decorrelation_weight,
        )
        return modules

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        network, loss = cast(EmbeddingNetwork, modules["network"]), cast(HardGlobalSoftmin, modules["loss"])
        decay = config.weight_decay
        roles: dict[str, list[ParameterGroup]] = {
            "network": network.parameter_groups(config.lr, decay),
            "centres": [
                {"params": loss.centre_parameters(), "lr": config.centre_lr or config.lr, "weight_decay": decay}
            ],
        }
        if config.learn_alpha:
            roles["alpha"] = [{"params": [loss.alpha], "lr": config.alpha_lr, "weight_decay": decay}]
        if config.clip == "joint":
            roles = {"all": [group for groups in roles.values() for group in groups]}
        return {
            role: Optimization(
                make_optimizer(config.optimizer, groups), make_schedule(config.schedule), config.clip_norm
            )
            for role, groups in roles.items()
        }

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = modules["loss"](modules["network"](batch.images), batch.labels)
        return parts
