"""The base of methods that choose which weights are trained before the first step, and train them from scratch."""

from abc import abstractmethod
from typing import Annotated, TypeVar

from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import Context, Optimization, Stage, Variant, operating_point
from subnetbench.methods.parts.bases.classifier import ClassifierConfig
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network, masked_network
from subnetbench.methods.parts.masks.masks import FixedMask
from subnetbench.methods.parts.masks.training import MaskedClassifierMethod


class SparseTrainingConfig(ClassifierConfig):
    """Options of methods that are sparse from the first step on."""

    sparsity: Annotated[
        float, Field(ge=0, lt=1, description="fraction removed of all convolution and linear weights"), operating_point
    ] = 0.5


ConfigT = TypeVar("ConfigT", bound=SparseTrainingConfig)


class SparseTraining(MaskedClassifierMethod[ConfigT]):
    """One stage, before which `choose` fixes the masks."""

    tiny = {"network": "conv2", "image_size": 8}

    @abstractmethod
    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        """Boolean masks by parameter name, for the freshly drawn weights; the same bits on all ranks."""

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": mask_network(self.plain_network(context), FixedMask())})

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        masked = masked_network(modules)
        masked.set_masks(self.choose(masked, context))

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"weights": self.sgd(masked_network(modules).base.parameters())}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        return [Variant("subnetwork", lambda: masked.finalise().eval(), self.preprocessing(context))]
