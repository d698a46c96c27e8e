"""Post-training pruning of heads and neurons of a ViT encoder by Fisher information (Kwon et al. 2022)."""

from typing import Annotated

from pydantic import Field
from torch import nn

from subnetbench.harness.method import Choice, Context, operating_point, register_method
from subnetbench.methods.parts.text_image.pruned_encoders import PrunedEncoder, PrunedEncoderConfig
from subnetbench.methods.parts.vit.fisher import UnitCosts, rearrange_masks, search_masks
from subnetbench.methods.parts.vit.mask_tuning import tune_masks
from subnetbench.methods.parts.vit.pruning import Masks, fisher_information, full_masks


@register_method("fisher_pruning")
class FisherPruning(PrunedEncoder["FisherPruning.Config"]):
    """Search within a budget of MACs, rearrangement within layers, tuning of what is kept, compaction.

    `preset: paper` lets heads overrun the budget in the search and takes factors of any size from the tuning.
    """

    paper = "Kwon et al., A Fast Post-Training Pruning Framework for Transformers, arXiv 2204.09656"
    tiny = {"capacity": 0.6, "calibration_images": 32, "calibration_batch": 16, "tuning_images": 16}

    class Config(PrunedEncoderConfig):
        paper_defaults = {"capacity": 0.65, "calibration_images": 8192, "tuning_images": 8192, "factor_limit": None}
        searched_when = {"tuning_images": {"tune": (True,)}, "factor_limit": {"tune": (True,)}}

        capacity: Annotated[
            float, Field(gt=0, le=1, description="fraction of the layers' MACs that is kept"), operating_point
        ] = 0.75
        rearrange: Annotated[
            bool, Field(description="choose anew within layers, with interactions"), Choice((True, False))
        ] = True
        tune: Annotated[bool, Field(description="fit factors of what is kept to the dense layers")] = True
        tuning_images: Annotated[int, Field(ge=1, description="images for the tuning"), Choice((64, 128, 256, 512))] = (
            256
        )
        factor_limit: Annotated[
            float | None, Field(gt=0, description="largest factor of the tuning; null: none"), Choice((2.0, 10.0, None))
        ] = 10.0

    def find_masks(self, vit: nn.Module, context: Context) -> Masks:
        config, network = self.config, self.vit(vit)
        shape = network.shape
        gradients = self.gradients(network, self.calibration_batches(context), full_masks(network))
        information = Masks(fisher_information(gradients.heads), fisher_information(gradients.neurons))
        costs = UnitCosts.of(1 + shape.patches, shape.width, shape.head_width)
        masks = search_masks(information, costs, config.capacity, guard_budget=config.preset != "paper")
        if config.rearrange:
            masks = rearrange_masks(masks, gradients)
        if config.tune:
            images = (batch for batch, _ in self.calibration_batches(context, config.tuning_images))
            masks = tune_masks(network, masks, images, limit=config.factor_limit, scratch=context.scratch)
        return masks
