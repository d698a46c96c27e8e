"""The base of methods that search a subnetwork: one masked network, one finalised variant."""

from abc import abstractmethod
from typing import Annotated, Literal, TypeVar

from pydantic import Field
from torch import nn

from subnetbench.harness.context import Context
from subnetbench.harness.method import Variant
from subnetbench.methods.parts.classifying import ClassifierConfig, ClassifierMethod
from subnetbench.methods.parts.initialisation import kaiming_normal_, signed_constant_
from subnetbench.methods.parts.masking import MaskedModel, mask_network
from subnetbench.methods.parts.masks import Mask


class FrozenSearchConfig(ClassifierConfig):
    """Methods that search in a network of frozen random weights."""

    signed_constant: Annotated[
        Literal["none", "all", "conv"],
        Field(description="replace weights by their sign times one magnitude a layer; conv: not in linear layers"),
    ] = "none"


ConfigT = TypeVar("ConfigT", bound=FrozenSearchConfig)


class FrozenSearch(ClassifierMethod[ConfigT]):
    """Searches a mask over frozen random weights; `variants` offers the finalised plain network."""

    @abstractmethod
    def mask(self) -> Mask:
        """The mask of this method, from its config."""

    def build(self, context: Context) -> nn.ModuleDict:
        network = self.plain_network(context)
        generator = context.torch_generator("init", "weights")
        kaiming_normal_(network, generator)
        if self.config.signed_constant != "none":
            signed_constant_(network, self.config.signed_constant)
        return nn.ModuleDict({"network": mask_network(network, self.mask(), generator=generator)})

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked: MaskedModel = modules["network"]
        return [Variant("subnetwork", lambda: masked.finalise().eval(), self.preprocessing(context))]
