"""Lottery ticket: iterative magnitude pruning with weight rewinding (Frankle et al., ICML 2020)."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import nn

from subnetbench.harness.config import Uniform, operating_point
from subnetbench.harness.context import Context
from subnetbench.harness.data import TaskData
from subnetbench.harness.method import Optimization, Stage, Variant
from subnetbench.harness.registry import register_method
from subnetbench.methods.parts.classifying import ClassifierConfig
from subnetbench.methods.parts.masked_training import MaskedClassifierMethod
from subnetbench.methods.parts.masking import mask_network, masked_network
from subnetbench.methods.parts.masks import FixedMask
from subnetbench.methods.parts.pruning import lottery_sparsities, magnitude_masks


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
        return f"{self.config.epochs * (1 + len(self._levels()))} epochs x {len(data.train)} images"

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

    def on_epoch_start(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        first = self.stages(context)[0].name
        if stage.name == first and epoch == self.config.rewind_epoch:
            self.state["rewind"] = copy_state(masked_network(modules).base)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"weights": self.sgd(masked_network(modules).base.parameters())}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        return [Variant("ticket", lambda: masked.finalise().eval(), self.preprocessing(context))]


def copy_state(module: nn.Module) -> dict[str, Any]:
    """Weights and buffers as they are now, which later steps do not change."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
