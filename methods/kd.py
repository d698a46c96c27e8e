"""Knowledge distillation of a classifier (Hinton, Vinyals and Dean 2015), with FitNets, RKD and DIST as losses."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Choice,
    Context,
    LogUniform,
    Optimization,
    Preprocessing,
    Stage,
    Step,
    UserError,
    Variant,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.bases.classifier import ClassifierConfig, ClassifierMethod
from subnetbench.methods.parts.losses.classifier_distillation import (
    CLASSIFIER_LOSSES,
    dist,
    hint_loss,
    hint_regressor,
)
from subnetbench.methods.parts.losses.neighbours import relational_knowledge, soft_labels
from subnetbench.methods.parts.networks.modes import in_evaluation_mode
from subnetbench.methods.parts.networks.taps import check_layer, last_linear, middle_convolution, tapped


@register_method("kd")
class KD(ClassifierMethod["KD.Config"]):
    """A small classifier learns from labels and from a frozen larger one, the input `teacher`, on the same crops.

    `loss` says what of the teacher it follows:
    soft_labels: its class probabilities at a raised temperature (Hinton et al. 2015);
    fitnet: the output of its middle layer, through a regressor (Romero et al. 2015; beside the labels in one stage, as later
    comparisons do, and not in a stage of its own before);
    rkd: distances and angles among its penultimate features in a batch (Park et al. 2019);
    dist: how its probabilities correlate over classes, and over the samples of a batch (Huang et al. 2022).

    The student sees images as the teacher does. The teacher is no part of what is trained or saved.
    """

    paper = "Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531"
    tiny = {"network": "conv2", "image_size": 8}

    class Config(ClassifierConfig):
        searched_when = {"temperature": {"loss": ("soft_labels", "dist")}}

        loss: Annotated[
            Literal["soft_labels", "fitnet", "rkd", "dist"],
            Field(description="what of the teacher the student follows"),
            Choice(tuple(CLASSIFIER_LOSSES)),
        ] = "soft_labels"
        weight: Annotated[
            float, Field(ge=0, description="of the loss, in multiples of the published weight"), LogUniform(0.1, 10)
        ] = 1.0
        label_weight: Annotated[
            float | None,
            Field(ge=0, description="of the cross-entropy with labels [default: 0.1 beside soft_labels, else 1]"),
        ] = None
        temperature: Annotated[
            float, Field(gt=0, description="soft_labels, dist: divides logits"), LogUniform(1, 16)
        ] = 4.0
        hint_layer: Annotated[
            str | None, Field(description="fitnet: the teacher's layer [default: its middle convolution]")
        ] = None
        guided_layer: Annotated[
            str | None, Field(description="fitnet: the student's layer [default: its middle convolution]")
        ] = None
        teacher_network: Annotated[
            str | None,
            Field(description="network of the teacher, unless one is given [default: the student's]"),
            operating_point,
        ] = None
        teacher_variant: Annotated[
            str | None, Field(description="which variant of the teacher's run to learn from [default: its first]")
        ] = None

        @model_validator(mode="after")
        def _fits_the_loss(self) -> Self:
            kind = CLASSIFIER_LOSSES[self.loss]
            for name in ("hint_layer", "guided_layer"):
                if getattr(self, name) is not None and kind.compares != "hints":
                    raise ValueError(f"{name}: the loss {self.loss} compares no inner layers")
            if not kind.of_samples and self.micro_batch_size and self.micro_batch_size < self.batch_size:
                raise ValueError(f"micro_batch_size: the loss {self.loss} needs the whole batch at once")
            return self

    def __init__(self, config: "KD.Config") -> None:
        super().__init__(config)
        self._kind = CLASSIFIER_LOSSES[config.loss]
        self._teacher: nn.Module

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, object]]:
        shared = {name: getattr(config, name) for name in ClassifierConfig.model_fields}
        return {
            "teacher": {"method": "dense", "config": {**shared, "network": config.teacher_network or config.network}}
        }

    def build(self, context: Context) -> nn.ModuleDict:
        network, teacher = self.plain_network(context), self._teacher_variant(context).build().to(context.device)
        size = self.preprocessing(context).size
        image = torch.zeros(2, context.metadata.channels, size, size)
        with torch.no_grad(), in_evaluation_mode(network), in_evaluation_mode(teacher):
            own, guided = self._outputs(network, image, "guided_layer")
            other, hint = self._outputs(teacher, image.to(context.device), "hint_layer")
        if own.shape != other.shape:
            fault = "the teacher tells another number of classes apart"
            raise UserError(fault, field="inputs.teacher", value=other.shape[1], allowed=own.shape[1])
        modules = nn.ModuleDict({"network": network})
        if self._kind.compares == "hints":
            modules["regressor"] = hint_regressor(guided, hint)
        return modules

    def preprocessing(self, context: Context) -> Preprocessing:
        seen, asked = self._teacher_variant(context).preprocessing, self.config.image_size
        if asked not in (None, seen.size):
            raise UserError("the teacher sees another size", field="image_size", value=asked, allowed=seen.size)
        return seen

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        self._teacher = self._teacher_variant(context).build().to(context.device).eval().requires_grad_(False)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"weights": self.sgd(modules.parameters())}

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        batches, ranks = super().plan_epoch(modules, stage, epoch, context), context.world.size
        if self._kind.of_samples:
            return batches
        # What ranks exchange is equally much on each, and the smallest relation is one of two samples.
        return [whole for batch in batches if len(whole := batch[: len(batch) // ranks * ranks]) >= 2 * ranks]

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        reduction = "mean" if self._kind.of_samples else "gathered"
        step.backward(lambda batch: self.loss(modules, batch, step), reduction=reduction)
        step.update()

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        config, kind, labels = self.config, self._kind, batch.labels
        logits, own = self._outputs(modules["network"], batch.images, "guided_layer")
        correct = (logits.detach().argmax(1) == labels).float().mean()
        with torch.no_grad():
            _, target = self._outputs(self._teacher, batch.images, "hint_layer")
        if "regressor" in modules:
            own = modules["regressor"](own)
        with torch.autocast(logits.device.type, enabled=False):
            logits, own, target = logits.float(), own.float(), target.float()
            if not kind.of_samples:
                logits, own = step.gather(logits), step.gather(own)
                labels, target = step.world.gather_rows(labels), step.world.gather_rows(target)
            label_weight = kind.label_weight if config.label_weight is None else config.label_weight
            parts = {"labels": label_weight * F.cross_entropy(logits, labels)}
            for name, part in self._compared(own, target).items():
                parts[name] = config.weight * kind.weight * part
        return {"loss": torch.stack(list(parts.values())).sum(), "accuracy": correct, **parts}

    def _outputs(self, network: nn.Module, images: Tensor, field: str) -> tuple[Tensor, Tensor]:
        """The logits of a network and what of it is compared; `field` is the option that names its inner layer."""
        if self._kind.compares == "logits":
            logits = network(images)
            return logits, logits
        if self._kind.compares == "features":
            layer, where = last_linear(network), "inputs"
        else:
            named = getattr(self.config, field)
            layer, where = check_layer(network, named, field) if named else middle_convolution(network), "outputs"
        with tapped(network, **{where: [layer]}) as kept:
            logits = network(images)
        return logits, kept[layer]

    def _compared(self, own: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The loss between student and teacher before its weight, as named scalars."""
        if self.config.loss == "fitnet":
            return {"hints": hint_loss(own, target)}
        if self.config.loss == "rkd":
            return relational_knowledge(own.flatten(1), target.flatten(1))
        if self.config.loss == "dist":
            return dist(own, target, temperature=self.config.temperature)
        return {"soft_labels": soft_labels(own, target, temperature=self.config.temperature)}

    def _teacher_variant(self, context: Context) -> Variant:
        finished = context.input("teacher")
        if finished.spec.task != "classification":
            fault = "the teacher must be a classifier"
            raise UserError(fault, field="inputs.teacher", value=finished.spec.run_id, allowed="classification")
        return replace(finished.variant(self.config.teacher_variant), name="teacher", frozen=True)

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        return [self.variant("student", modules["network"], context, capacity=1.0), self._teacher_variant(context)]
