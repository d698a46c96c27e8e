"""Structured pruning by dependency graph: whole channels are removed, and multiply-accumulates with them (DepGraph)."""

from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import nn

from subnetbench.harness.method import (
    Choice,
    Context,
    Optimization,
    Stage,
    TaskData,
    Variant,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.bases.classifier import ClassifierConfig, ClassifierMethod
from subnetbench.methods.parts.networks.dependency_pruning import Importance, library, remove_channels
from subnetbench.methods.parts.networks.resizable import ResizableNetwork


@register_method("structured_pruning")
class StructuredPruning(ClassifierMethod["StructuredPruning.Config"]):
    """Train, remove the least important channels with all that depends on them, fine-tune what is left.

    A channel that is added to another one by a shortcut can only go with it: such channels form a group, found by
    torch-pruning (the extra `pruning`). The result is an ordinary smaller network: `macs_executed` falls, and so does the time
    of fine-tuning. `importance: random` is the control.
    """

    paper = "Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900"
    tiny = {"network": "conv2", "image_size": 8, "finetune_epochs": 1}

    class Config(ClassifierConfig):
        channel_sparsity: Annotated[
            float, Field(ge=0, lt=1, description="fraction of the channels removed"), operating_point
        ] = 0.5
        scope: Annotated[
            Literal["global", "layer"],
            Field(description="compare channels over the whole network, or remove the same share of each group"),
            Choice(("global", "layer")),
        ] = "layer"
        importance: Annotated[
            Importance,
            Field(description="group_norm: L2 norm over all layers of a channel's group; random: the control"),
        ] = "group_norm"
        finetune_epochs: Annotated[int, Field(ge=0, description="epochs after pruning"), operating_point] = 5
        finetune_lr: Annotated[float, Field(gt=0, description="peak learning rate of fine-tuning")] = 0.01

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": ResizableNetwork(self.plain_network(context))})

    def stages(self, context: Context) -> list[Stage]:
        return [Stage("train", self.config.epochs), Stage("pruned", self.config.finetune_epochs)]

    def budget(self, data: TaskData) -> str:
        return self.config.budget(self.config.epochs + self.config.finetune_epochs, len(data.train))

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        library()  # missing, it is said before training and not after it
        if stage.name == "pruned":
            size = self.preprocessing(context).size
            remove_channels(
                cast(ResizableNetwork, modules["network"]).network,
                torch.zeros(1, context.metadata.channels, size, size, device=context.device),
                self.config.channel_sparsity,
                scope=self.config.scope,
                importance=self.config.importance,
                generator=context.torch_generator("masks", "channels"),
            )

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        rate = {"lr": self.config.finetune_lr} if stage.name == "pruned" else {}
        return {"weights": self.sgd(modules["network"].parameters(), **rate)}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        return [self.variant("pruned", cast(ResizableNetwork, modules["network"]).network, context)]
