"""The base of methods that choose a fixed mask once: before training, or after it with fine-tuning."""

from abc import abstractmethod
from typing import Annotated, Literal, TypeVar

from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import Context, Optimization, Stage, TaskData, Variant, operating_point
from subnetbench.methods.parts.bases.classifier import ClassifierConfig
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network, masked_network
from subnetbench.methods.parts.masks.masks import FixedMask
from subnetbench.methods.parts.masks.training import MaskedClassifierMethod


class PruningConfig(ClassifierConfig):
    """Options of one-shot pruning methods."""

    sparsity: Annotated[
        float, Field(ge=0, lt=1, description="fraction removed of all convolution and linear weights"), operating_point
    ] = 0.5
    scope: Annotated[
        Literal["global", "layer", "erk"],
        Field(description="compare weights over the whole network, or layer by layer; erk: budgets by layer size"),
    ] = "global"
    when: Annotated[Literal["after", "before"], Field(description="prune after training, or at the start")] = "after"
    finetune_epochs: Annotated[
        int, Field(ge=0, description="epochs after pruning; 0 leaves the kept weights as they are"), operating_point
    ] = 5
    finetune_lr: Annotated[float, Field(gt=0, description="peak learning rate of fine-tuning")] = 0.01


ConfigT = TypeVar("ConfigT", bound=PruningConfig)


class PruningMethod(MaskedClassifierMethod[ConfigT]):
    """Stages `train` and `finetune` around one choice of a mask; with `when: before` only `finetune`, at full rate."""

    tiny = {"network": "conv2", "image_size": 8, "finetune_epochs": 1}

    @abstractmethod
    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        """Boolean masks by parameter name, for the weights as they are now."""

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": mask_network(self.plain_network(context), FixedMask())})

    def stages(self, context: Context) -> list[Stage]:
        if self.config.when == "before":
            return [Stage("pruned", self.config.epochs)]
        return [Stage("train", self.config.epochs), Stage("pruned", self.config.finetune_epochs)]

    def budget(self, data: TaskData) -> str:
        extra = self.config.finetune_epochs if self.config.when == "after" else 0
        return self.config.budget(self.config.epochs + extra, len(data.train))

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        if stage.name == "pruned":
            masked_network(modules).set_masks(self.choose(masked_network(modules), context))

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        finetuning = stage.name == "pruned" and self.config.when == "after"
        rate = {"lr": self.config.finetune_lr} if finetuning else {}
        return {"weights": self.sgd(masked_network(modules).base.parameters(), **rate)}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        return [Variant("subnetwork", lambda: masked.finalise().eval(), self.preprocessing(context))]
