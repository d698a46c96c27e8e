"""Supermask: Bernoulli masks over a frozen random network (Zhou et al., NeurIPS 2019)."""

from typing import Annotated

from pydantic import Field
from torch import nn

from subnetbench.harness.method import Context, Optimization, Stage, Step, register_method
from subnetbench.methods.parts.masks.masked_model import masked_network
from subnetbench.methods.parts.masks.masks import Supermask as SupermaskMask
from subnetbench.methods.parts.masks.search import SampledSearch, SampledSearchConfig


@register_method("supermask")
class Supermask(SampledSearch["Supermask.Config"]):
    """A weight is kept with probability sigmoid(score); only scores are learned. Sparsity is not controlled.

    With `weight_rescale` a layer is multiplied by entries / kept (the dynamic rescale). The thresholded network
    recomputes that factor for its own mask; the published code has no deterministic evaluation of rescaled masks.
    """

    paper = "Zhou et al., Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask, arXiv 1905.01067"

    class Config(SampledSearchConfig):
        weight_rescale: Annotated[bool, Field(description="multiply each layer by entries / kept of its mask")] = False

    def mask(self) -> SupermaskMask:
        return SupermaskMask(rescale=self.config.weight_rescale, initial_value=self.config.initial_value)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"scores": self.sgd(masked_network(modules).score_parameters())}

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        masked_network(modules).draw(step.generator("masks"))
        super().training_step(modules, step)
