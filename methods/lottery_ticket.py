"""Lottery ticket: iterative magnitude pruning with weight rewinding (Frankle et al., ICML 2020)."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import nn

from subnetbench.harness.method import (
    Context,
    Optimization,
    Stage,
    TaskData,
    Uniform,
    Variant,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.bases.classifier import ClassifierConfig
from subnetbench.methods.parts.masks.magnitude import lottery_sparsities, magnitude_masks
from subnetbench.methods.parts.masks.masked_model import mask_network, masked_network
from subnetbench.methods.parts.masks.masks import FixedMask
from subnetbench.methods.parts.masks.rewinding import copy_state
from subnetbench.methods.parts.masks.training import MaskedClassifierMethod


@register_method("lottery_ticket")
class LotteryTicket(MaskedClassifierMethod["LotteryTicket.Config"]):
    """Train, remove the smallest of what is left, rewind the rest to an early epoch, and again until `sparsity`.

    Each level trains all epochs; the ticket is the network of the last level. The masks of a level are chosen
    from the weights at its end, over the whole network.
    """

    paper = (
        "Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket Hypothesis, arXiv 1912.05671"
    )
    tiny = {"network": "conv2", "image_size": 8, "sparsity": 0.36, "rewind_epoch": 1}

    class Config(ClassifierConfig):
        sparsity: Annotated[float, Field(ge=0, lt=1, description="fraction removed in the end"), operating_point] = 0.5
        rate: Annotated[
            float, Field(gt=0, lt=1, description="share of what is left removed a level"), Uniform(0.1, 0.5)
        ] = 0.2
        rewind_epoch: Annotated[int, Field(ge=0, description="weights go back to their state after this epoch")] = 0

        @model_validator(mode="after")
        def _rewinds_into_training(self) -> Self:
            if self.rewind_epoch >= self.epochs > 0:
                raise ValueError(f"rewind_epoch {self.rewind_epoch} must be smaller than epochs {self.epochs}")
            return self

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": mask_network(self.plain_network(context), FixedMask())})

    def _levels(self) -> list[float]:
        return lottery_sparsities(self.config.sparsity, self.config.rate)

    def stages(self, context: Context) -> list[Stage]:
        epochs = self.config.epochs
        search = [Stage(f"level{i}", epochs, select=False) for i in range(len(self._levels()))]
        return [*search, Stage("ticket", epochs)]

    def budget(self, data: TaskData) -> str:
        return self.config.budget(self.config.epochs * (1 + len(self._levels())), len(data.train))

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        masked = masked_network(modules)
        names = [each.name for each in self.stages(context)]
        level = names.index(stage.name)
        if level == 0:
            return
        weights = {name: masked.weight(name) for name in masked.names}
        within = {name: masked.score(name) for name in masked.names}
        masked.set_masks(magnitude_masks(weights, self._levels()[level - 1], "global", within=within))
        masked.base.load_state_dict(self.state["rewind"])

    def start_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        first = self.stages(context)[0].name
        if stage.name == first and epoch == self.config.rewind_epoch:
            self.state["rewind"] = copy_state(masked_network(modules).base)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"weights": self.sgd(masked_network(modules).base.parameters())}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        return [Variant("ticket", lambda: masked.finalise().eval(), self.preprocessing(context))]
