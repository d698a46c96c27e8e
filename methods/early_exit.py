"""Early exit: the first layers of a trained ViT encoder as a cheap level, the whole ViT as the expensive one.

In a cascade the second level continues from the tokens that the first left behind, and costs only the other layers.
"""

from dataclasses import replace
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import Context, Preprocessing, Variant, mac_metrics, operating_point, register_method
from subnetbench.methods.parts.text_image.base import EncoderDistillation, EncoderDistillationConfig, derived, vit_of
from subnetbench.methods.parts.text_image.early_exit import EarlyExit


@register_method("early_exit")
class EarlyExitMethod(EncoderDistillation["EarlyExitMethod.Config"]):
    """A layer norm and a linear layer behind layer `depth` learn the embedding of the whole ViT.

    The published code hands over the wrong tokens and never loads the trained heads; this is not reproduced.
    """

    paper = "Hoenig, Ackermann and Chi, Bi-Encoder Cascades for Efficient Image Search, arXiv 2303.15595"
    tiny = {"depth": 1}

    class Config(EncoderDistillationConfig):
        paper_defaults = {**EncoderDistillationConfig.paper_defaults, "lr": 2e-3, "epochs": 10}

        depth: Annotated[int, Field(ge=1, description="layers in front of the exit"), operating_point] = 3

    def student(self, teacher: nn.Module, context: Context) -> nn.Module:
        network = EarlyExit(vit_of(self.teacher(context), context.device), self.config.depth)
        network.vit.requires_grad_(False)
        return network

    def preprocessing(self, context: Context) -> Preprocessing:
        return self.teacher(context).preprocessing

    def head_inputs(self, network: nn.Module) -> nn.Module | None:
        return _ClassTokens(cast(EarlyExit, network)) if self.config.augment == "none" else None

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        network, teacher = cast(EarlyExit, modules["network"]), self.teacher(context)
        size, channels = teacher.preprocessing.size, context.metadata.channels
        image = torch.zeros(1, channels, size, size, device=context.device)
        front = mac_metrics(_Front(network).eval(), image)["macs_executed"]
        whole = derived(teacher, "whole", network.vit)
        whole.details["macs_shared"] = front
        return [derived(teacher, "exit", network), replace(whole, continues="exit", origin=teacher.origin)]


class _Front(nn.Module):
    """The part that both levels share: images to the tokens behind layer `depth`."""

    def __init__(self, network: EarlyExit) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.tokens(images)


class _ClassTokens(_Front):
    """The inputs of the exit's head."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network.class_tokens(images)
