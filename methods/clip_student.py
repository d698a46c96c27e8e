"""Convolutional student of an image encoder for text search: any backbone with a head into the teacher's space.

The cheap level of a cascade (Hönig, Ackermann and Chi 2023), distilled without texts or labels.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import nn

from subnetbench.harness.method import (
    Context,
    Preprocessing,
    Stage,
    UserError,
    UserValues,
    Variant,
    Weights,
    fill,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.networks.batch_norm import load_running_statistics, running_statistics
from subnetbench.methods.parts.networks.packaged_weights import published_weight_files
from subnetbench.methods.parts.text_image.base import EncoderDistillation, EncoderDistillationConfig, derived
from subnetbench.methods.parts.text_image.clip_student import ClipStudent, ImageFeatures, clip_student


@register_method("clip_student")
class ClipStudentMethod(EncoderDistillation["ClipStudentMethod.Config"]):
    """A smaller backbone and a linear head give the teacher's image embeddings; texts keep the teacher's encoder.

    As published only the head is trained on a frozen backbone, so both networks run once over the images; or the
    whole student is trained. `preset: paper` takes the images in their order, and lets batch norm see batches and
    drift in training although the trained head then meets the original statistics.
    """

    paper = "Hoenig, Ackermann and Chi, Bi-Encoder Cascades for Efficient Image Search, arXiv 2303.15595"
    tiny = {"network": "cnn8-8", "image_size": 16}

    class Config(EncoderDistillationConfig):
        paper_defaults = {
            **EncoderDistillationConfig.paper_defaults,
            "network": "mobilenet_v3_small",
            "pretrained": True,
            "epochs": 4,
        }

        network: Annotated[str, Field(description="backbone of the student"), operating_point] = "cnn32-64-128"
        pretrained: Annotated[bool, Field(description="start from the published weights of the backbone")] = False
        train_backbone: Annotated[bool, Field(description="train the whole student, not only its head")] = True
        image_size: Annotated[
            int | None, Field(ge=8, description="side that the student sees [default: the teacher's]"), operating_point
        ] = None
        head_layers: Annotated[int, Field(ge=1, description="linear layers of the head")] = 1
        hidden: Annotated[int, Field(ge=1, description="width between the layers of the head")] = 512

        def installed_files(self) -> Mapping[str, Path]:
            return published_weight_files(self.network) if self.pretrained else {}

    def student(self, teacher: nn.Module, context: Context) -> nn.Module:
        config, size = self.config, self.preprocessing(context).size
        seen = self.teacher(context).preprocessing.size
        with torch.no_grad():
            width = teacher(torch.zeros(1, context.metadata.channels, seen, seen, device=context.device)).shape[1]
        mode: Literal["frozen", "trained", "published"] = "trained" if config.train_backbone else "frozen"
        return clip_student(
            config.network,
            embedding=width,
            layers=config.head_layers,
            hidden=config.hidden,
            image_size=size,
            pretrained=config.pretrained,
            mode="published" if config.preset == "paper" else mode,
        )

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        if any(name.startswith("backbone.") for name in weights.tensors):
            return {}
        # The published files are heads of torchvision's frozen backbones, called CHECKPOINT_NETWORK_HIDDEN_LAYERS.
        found = re.fullmatch(r".+?_((?:mobilenet|resnet)\w+?)_(\d+)_(\d+)", weights.path.stem)
        named = {"network": found[1], "hidden": int(found[2]), "head_layers": int(found[3])} if found else {}
        return {"pretrained": True, "train_backbone": False, **named}

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        student = cast(ClipStudent, modules["network"])
        if any(name.startswith("backbone.") for name in weights.tensors):
            fill(student, weights)
            return
        if not self.config.pretrained:
            raise UserError(
                "a head alone belongs to a published backbone", field="pretrained", value=False, allowed="true"
            )
        single = isinstance(student.head, nn.Linear)
        names = {name: name.removeprefix("0.") if single else name for name in weights.tensors}
        fill(student.head, weights.renamed({names[name]: each for name, each in weights.tensors.items()}))

    def preprocessing(self, context: Context) -> Preprocessing:
        usual = self.teacher(context).preprocessing
        return usual if self.config.image_size is None else usual.resized_to(self.config.image_size)

    def head_inputs(self, network: nn.Module) -> nn.Module | None:
        student = cast(ClipStudent, network)
        frozen = student.mode == "frozen" and self.config.augment == "none"
        return ImageFeatures(student) if frozen else None

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        if self.config.preset == "paper":
            statistics: Any = running_statistics(cast(ClipStudent, modules["network"]).backbone)
            self.state["statistics"] = statistics

    def finish(self, modules: nn.ModuleDict, context: Context) -> None:
        if self.config.preset == "paper":
            load_running_statistics(cast(ClipStudent, modules["network"]).backbone, self.state["statistics"])

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        return [derived(self.teacher(context), "student", modules["network"], self.preprocessing(context))]
