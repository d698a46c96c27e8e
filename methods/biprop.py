"""Biprop: search a binary subnetwork of a frozen random network (Diffenderfer and Kailkhura, ICLR 2021)."""

from typing import Annotated

from pydantic import Field
from torch import nn

from subnetbench.harness.method import Context, LogUniform, Optimization, Stage, operating_point, register_method
from subnetbench.methods.parts.masks.masked_model import masked_network
from subnetbench.methods.parts.masks.masks import BinaryMask
from subnetbench.methods.parts.masks.search import FrozenSearch, FrozenSearchConfig


@register_method("biprop")
class Biprop(FrozenSearch["Biprop.Config"]):
    """Each layer keeps its weights of largest |score|, as their signs times one number: binary weights, learned by choice.

    These are the multi-prize tickets with binary weights and real activations (MPT-1/32). Everything but the scores
    stays as it was drawn, the affine parameters of norms too.
    """

    paper = "Diffenderfer, Kailkhura, Multi-Prize Lottery Ticket Hypothesis, arXiv 2103.09377"

    class Config(FrozenSearchConfig):
        sparsity: Annotated[
            float, Field(ge=0, lt=1, description="fraction removed, in every layer"), operating_point
        ] = 0.5
        lr: Annotated[float, Field(gt=0, description="peak learning rate of the scores"), LogUniform(1e-2, 10.0)] = 0.1
        weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on the scores"), LogUniform(1e-6, 1e-2)] = (
            1e-4
        )

    def mask(self) -> BinaryMask:
        return BinaryMask(self.config.sparsity, rule="sorted")

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"scores": self.sgd(masked_network(modules).score_parameters())}
