"""Edge-popup: keep the highest-scored weights of a frozen random network (Ramanujan et al., CVPR 2020)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from subnetbench.harness.method import (
    Context,
    LogUniform,
    Optimization,
    Stage,
    UserValues,
    Weights,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.masks.foreign import of_hidden_networks
from subnetbench.methods.parts.masks.masked_model import masked_network
from subnetbench.methods.parts.masks.masks import EdgePopupMask
from subnetbench.methods.parts.masks.search import ASLP_RECIPE, FrozenSearch, FrozenSearchConfig


@register_method("edge_popup")
class EdgePopup(FrozenSearch["EdgePopup.Config"]):
    """Each layer keeps its weights of largest |score|; only scores are learned, straight through the choice.

    Differences of `preset: paper`, which follows the ASLP code's edge-popup: learning rate 50, constant, without
    weight decay on the scores (default: 0.1 with a cosine and 1e-4, as in the authors' own code).
    """

    paper = "Ramanujan et al., What's Hidden in a Randomly Weighted Neural Network?, arXiv 1911.13299"

    class Config(FrozenSearchConfig):
        paper_defaults = {**ASLP_RECIPE, "lr": 50.0, "weight_decay": 0.0, "schedule": "constant"}

        sparsity: Annotated[
            float, Field(ge=0, lt=1, description="fraction removed, in every layer"), operating_point
        ] = 0.5
        rule: Annotated[
            Literal["threshold", "sorted"],
            Field(description="threshold: keep all |score| >= the k-th smallest; sorted: exactly the released count"),
        ] = "threshold"
        lr: Annotated[float, Field(gt=0, description="peak learning rate of the scores"), LogUniform(1e-2, 10.0)] = 0.1
        weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on the scores"), LogUniform(1e-6, 1e-2)] = (
            1e-4
        )

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        rule = {"rule": "sorted"} if of_hidden_networks(weights) else {}
        return {**super().describe_weights(weights), **rule}

    def mask(self) -> EdgePopupMask:
        return EdgePopupMask(self.config.sparsity, rule=self.config.rule)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"scores": self.sgd(masked_network(modules).score_parameters())}
