"""Random masks: the control for every method that claims to choose well."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from subnetbench.harness.method import Context, register_method
from subnetbench.methods.parts.masks.magnitude import random_masks
from subnetbench.methods.parts.masks.masked_model import MaskedModel
from subnetbench.methods.parts.masks.pruning import PruningConfig, PruningMethod


@register_method("random_mask")
class RandomMask(PruningMethod["RandomMask.Config"]):
    """Removes a random share of each layer; the rest is trained from the start.

    `when: after` removes it from a trained network instead; with `finetune_epochs: 0` the trained weights that are
    left stay frozen.
    """

    class Config(PruningConfig):
        scope: Annotated[
            Literal["global", "layer", "erk"],
            Field(description="draw over the whole network, or the same share a layer; erk: budgets by layer size"),
        ] = "layer"
        when: Annotated[Literal["after", "before"], Field(description="prune after training, or at the start")] = (
            "before"
        )

    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        weights = {name: masked.weight(name) for name in masked.names}
        generator = context.torch_generator("masks", "random")
        return random_masks(weights, self.config.sparsity, self.config.scope, generator)
