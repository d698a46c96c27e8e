"""SNIP: prune once before training, by connection sensitivity (Lee, Ajanthan, Torr, ICLR 2019)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from subnetbench.harness.method import Choice, Context, register_method
from subnetbench.methods.parts.masks.at_start import SparseTraining, SparseTrainingConfig
from subnetbench.methods.parts.masks.magnitude import largest_masks
from subnetbench.methods.parts.masks.masked_model import MaskedModel
from subnetbench.methods.parts.masks.saliency import Examples, snip_scores


@register_method("snip")
class Snip(SparseTraining["Snip.Config"]):
    """Keeps the fresh weights whose removal would change the loss of a few images most; trains them from scratch."""

    paper = "Lee, Ajanthan, Torr, SNIP: Single-shot Network Pruning based on Connection Sensitivity, arXiv 1810.02340"

    class Config(SparseTrainingConfig):
        images: Annotated[
            int, Field(ge=1, description="training images that the sensitivity is measured on"), Choice((64, 128, 512))
        ] = 128

    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        config = self.config
        size = config.micro_batch_size or config.batch_size
        examples = Examples.drawn(context, self.preprocessing(context), config.images, size)
        return largest_masks(snip_scores(masked, examples), config.sparsity, "global")
