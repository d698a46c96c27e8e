"""Post-training quantisation: a trained network with weights and activations of 8 bits (Jacob et al., CVPR 2018)."""

import copy
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from subnetbench.harness.method import (
    Choice,
    Context,
    Method,
    MethodConfig,
    UserError,
    Variant,
    batch_slices,
    register_method,
)
from subnetbench.methods.parts.networks.int8 import Int8Layer, Range, quantise, weight_bytes

BATCH = 64


@register_method("int8")
class Int8(Method["Int8.Config"]):
    """Any finished classifier or embedding network, the input `teacher`, rounded to 8 bits without training.

    Weights are rounded by output channel; activations by the range that each layer's inputs had on calibration images.
    Biases, norms and layers that are neither convolutions nor linear stay float. The bytes stored fall to about a quarter
    (`weight_bytes`) and scores are those of integer arithmetic, but it is simulated by float kernels: latency does not fall.
    """

    paper = (
        "Jacob et al., Quantization and Training of Neural Networks for Integer-Arithmetic-Only Inference, 1712.05877"
    )
    tasks = ("classification", "retrieval")
    tiny = {"calibration_images": 16}
    tiny_inputs = {
        "teacher": {"method": "dense", "config": {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2}}
    }

    class Config(MethodConfig):
        calibration_images: Annotated[
            int, Field(ge=1, description="training images on which ranges are collected, drawn at random")
        ] = 512
        ranges: Annotated[
            Range,
            Field(description="of activations: minmax over all batches of 64, or the mean over batches of each one's"),
            Choice(("minmax", "mean")),
        ] = "minmax"
        teacher_variant: Annotated[
            str | None, Field(description="which variant of the input run to quantise [default: its first]")
        ] = None

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, object]]:
        return {"teacher": {"method": "dense"}}

    def rebuild(self, context: Context) -> nn.ModuleDict:
        network = copy.deepcopy(self._teacher(context).build()).to(context.device).eval()
        quantise(network)
        return nn.ModuleDict({"network": network})

    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        config, train = self.config, context.data.train
        layers = [each for each in modules.modules() if isinstance(each, Int8Layer)]
        chosen = context.numpy_generator("order", "calibration").permutation(len(train))[: config.calibration_images]
        preprocessing = self._teacher(context).preprocessing
        for layer in layers:
            layer.observing = config.ranges
        with torch.no_grad():
            for part in batch_slices(len(chosen), BATCH):
                modules["network"](preprocessing(train.images, chosen[part], context.device))
        for layer in layers:
            layer.observing = None

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        teacher, network = self._teacher(context), modules["network"]
        own = replace(
            teacher,
            name="int8",
            build=network.eval,
            space=context.spec.run_id,
            frozen=False,
            origin=None,
            details={"weight_bytes": float(weight_bytes(network))},
        )
        return [own, teacher]

    def _teacher(self, context: Context) -> Variant:
        finished = context.input("teacher")
        if finished.spec.task != context.spec.task:
            fault = "was trained for another task"
            raise UserError(fault, field="inputs.teacher", value=finished.spec.task, allowed=context.spec.task)
        variant = replace(finished.variant(self.config.teacher_variant), name="float", frozen=True)
        return replace(variant, details={**variant.details, "weight_bytes": float(weight_bytes(variant.build()))})
