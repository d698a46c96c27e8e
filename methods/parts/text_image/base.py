"""What methods of text-to-image search share: the teacher they start from, and distillation of one image encoder.

Every such method offers variants that are image encoders with a text encoder of the same space. Encoders made from
another one (students, masked, pruned, early) keep its text encoder, so a cascade encodes a query once for all of them.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    LogUniform,
    Method,
    MethodConfig,
    Optimization,
    Preprocessing,
    Stage,
    Step,
    TrainableMethod,
    UserError,
    Variant,
    WeightsConfig,
)
from subnetbench.methods.parts.bases.embedder import OptimizerName, Schedule, make_optimizer
from subnetbench.methods.parts.optim.schedules import make_schedule
from subnetbench.methods.parts.text_image.clip_student import cosine_distillation_loss
from subnetbench.methods.parts.text_image.encoders import TextEncoder
from subnetbench.methods.parts.views.drawing import CROPS_AND_FLIPS, coupled_views, draw_views
from subnetbench.methods.parts.vit.conversion import plain_vit
from subnetbench.methods.parts.vit.model import PlainViT

TINY_VIT = {"image": "vit", "image_size": 16, "patch_size": 4, "width": 16, "layers": 3, "heads": 2, "dim": 8}
"""Config of a two-tower model that trains in seconds."""


class DerivedConfig(MethodConfig):
    """Options of every method that makes an image encoder from another one."""

    teacher_variant: Annotated[
        str | None, Field(description="which variant of the input run to start from [default: its first]")
    ] = None


def teacher_of(context: Context, name: str | None = None) -> Variant:
    """The image encoder that a run starts from: a variant of its input `teacher`, with its text encoder."""
    finished = context.input("teacher")
    variant = finished.variant(name)
    if variant.text_encoder is None:
        raise UserError("has no text encoder", field="inputs.teacher", value=finished.spec.run_id)
    return replace(variant, name="teacher", space=f"{finished.spec.run_id}/{variant.space}", frozen=True)


def vit_of(teacher: Variant, device: torch.device) -> PlainViT:
    """A copy of the teacher as a plain ViT.

    Raises:
        UserError: When it is none.
    """
    vit = plain_vit(teacher.build())
    copy = PlainViT(vit.shape)
    copy.load_state_dict(vit.state_dict())
    return copy.to(device).eval()


def logit_scale_of(teacher: Variant) -> float:
    """Logarithm of the factor on cosines that the teacher was trained with; CLIP's final ln(100) if it records none."""
    found = teacher.details.get("logit_scale")
    return float(np.log(100.0) if found is None else found)


def derived(teacher: Variant, name: str, network: nn.Module, preprocessing: Preprocessing | None = None) -> Variant:
    """A variant in the teacher's space, with its text encoder."""
    return replace(
        teacher,
        name=name,
        build=network.eval,
        preprocessing=preprocessing or teacher.preprocessing,
        frozen=False,
        origin=None,
        details={},
    )


DerivedConfigT = TypeVar("DerivedConfigT", bound=DerivedConfig)


class DerivedEncoder(Method[DerivedConfigT]):
    """Base of methods that make an image encoder from a ViT without training it."""

    tasks = ("text_image",)
    tiny_inputs = {"teacher": {"method": "two_tower", "config": {**TINY_VIT, "epochs": 1, "limit_steps": 2}}}

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, object]]:
        return {"teacher": {"method": "two_tower"}}

    def teacher(self, context: Context) -> Variant:
        """The image encoder that the run starts from, with its text encoder."""
        return teacher_of(context, self.config.teacher_variant)

    @abstractmethod
    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        """Set what is learned from data; `modules` are as `rebuild` makes them."""


class EncoderDistillationConfig(DerivedConfig, WeightsConfig):
    """Options of every method that teaches an image encoder the embeddings of another one."""

    paper_defaults = {"optimizer": "adam", "lr": 1e-3, "schedule": "constant", "batch_size": 64, "weight_decay": 0.0}

    augment: Annotated[
        Literal["none", "student", "crop"],
        Field(
            description="none: fixed views, teacher's embeddings cached; student: random crops and flips towards the same "
            "embeddings; crop: seen by both, so nothing is cached"
        ),
    ] = "none"
    crop_area: Annotated[float, Field(gt=0, le=1, description="smallest share of the image in a random crop")] = 0.5
    flip: Annotated[float, Field(ge=0, le=1, description="chance of a horizontal flip in a crop")] = 0.5
    optimizer: OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-4, 1e-2)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="weight decay"), LogUniform(1e-6, 1e-1)] = 1e-4
    schedule: Schedule = "cosine"


DistilT = TypeVar("DistilT", bound=EncoderDistillationConfig)


class EncoderDistillation(TrainableMethod[DistilT]):
    """Trains the module `network` to give the teacher's embeddings, by 1 - cosine, without texts or labels.

    A network whose `head` alone is trained is fed cached inputs of the head, where its views are fixed.
    """

    tasks = ("text_image",)
    tiny_inputs = DerivedEncoder.tiny_inputs

    def __init__(self, config: DistilT) -> None:
        super().__init__(config)
        self._teacher: nn.Module
        self._features: Tensor | None = None
        self._targets: Tensor | None = None

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, object]]:
        return {"teacher": {"method": "two_tower"}}

    @abstractmethod
    def student(self, teacher: nn.Module, context: Context) -> nn.Module:
        """The network to train; its parameters that are not to be trained require no gradients."""

    def head_inputs(self, network: nn.Module) -> nn.Module | None:
        """The frozen part in front of `network.head` as a network of its own; None where more is trained."""
        return None

    def teacher(self, context: Context) -> Variant:
        """The image encoder that the run starts from, with its text encoder."""
        return teacher_of(context, self.config.teacher_variant)

    def build(self, context: Context) -> nn.ModuleDict:
        self._teacher = self.teacher(context).build().to(context.device).eval().requires_grad_(False)
        return nn.ModuleDict({"network": self.student(self._teacher, context)})

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        parameters = [p for p in modules["network"].parameters() if p.requires_grad]
        groups = [{"params": parameters, "lr": config.lr, "weight_decay": config.weight_decay}]
        return {"weights": Optimization(make_optimizer(config.optimizer, groups), make_schedule(config.schedule))}

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        if self.config.augment == "crop" or not stage.epochs:
            return
        evaluator, train = context.evaluator, context.data.train
        self._targets = evaluator.cached_outputs(self._teacher, self.teacher(context).preprocessing, train)
        front = self.head_inputs(modules["network"])
        if front is not None:
            self._features = evaluator.cached_outputs(front.eval(), self.preprocessing(context), train)

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        train = context.data.train
        if self.config.preset == "paper":
            order = np.arange(len(train))
            return [order[start : start + self.config.batch_size] for start in order[:: self.config.batch_size]]
        return super().plan_epoch(modules, stage, epoch, context)

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        rows = torch.from_numpy(indices).to(context.device)
        labels = context.train_labels[rows]
        own, images = self.preprocessing(context), context.data.train.images
        known = {} if self._targets is None else {"target": self._targets[rows]}
        if self._features is not None:
            return Batch(indices=indices, images=self._features[rows], labels=labels, extra=known)
        if self.config.augment == "none":
            return Batch(indices=indices, images=own(images, indices, context.device), labels=labels, extra=known)
        options = replace(CROPS_AND_FLIPS, area=(self.config.crop_area, 1.0), flip=self.config.flip)
        draws = draw_views(options, indices, 1, len(images), seed=context.seed, counters=(stage.name, epoch))
        roles = {"student": own} if known else {"student": own, "teacher": self.teacher(context).preprocessing}
        views = {k: v.squeeze(1) for k, v in coupled_views(images, indices, draws, roles, context.device).items()}
        return Batch(indices=indices, images=views.pop("student"), labels=labels, extra=known or views)

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        if "target" in batch.extra:
            target = batch.extra["target"]
        else:
            with torch.no_grad():
                target = self._teacher(batch.extra["teacher"])
        network = cast(Any, modules["network"])
        student = network.head(batch.images) if self._features is not None else network(batch.images)
        return {"loss": cosine_distillation_loss(target, student)}


def text_encoder_of(variant: Variant) -> TextEncoder:
    """The variant's text encoder, which a cascade needs by its identity."""
    if not isinstance(variant.text_encoder, TextEncoder):
        raise UserError("has no text encoder that a cascade can share", field="variant", value=variant.name)
    return variant.text_encoder
