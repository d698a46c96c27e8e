"""Head pruning by sensitivity: layers of a trained ViT encoder are left with their most informative head.

Michel et al. (arXiv 1905.10650), changed as in the cascades of Hönig, Ackermann and Chi.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import Context, UserError, operating_point, register_method
from subnetbench.methods.parts.text_image.pruned_encoders import PrunedEncoder, PrunedEncoderConfig
from subnetbench.methods.parts.vit.pruning import Masks, full_masks, sensitivity_masks


@register_method("head_sensitivity")
class HeadSensitivity(PrunedEncoder["HeadSensitivity.Config"]):
    """In each step, of the layers still complete the one that owns the most informative head keeps only that head.

    Information is the sum of squared gradients of batch losses with respect to a factor on the head, measured anew
    under the masks so far. Nothing is tuned.
    """

    paper = "Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, arXiv 1905.10650"
    tiny = {"steps": 1, "calibration_images": 32, "calibration_batch": 16}

    class Config(PrunedEncoderConfig):
        paper_defaults = {"calibration_images": 128}

        steps: Annotated[
            int, Field(ge=0, description="layers that lose all heads but one (published: 2, 7, 12)"), operating_point
        ] = 2

    def find_masks(self, vit: nn.Module, context: Context) -> Masks:
        network = self.vit(vit)
        if self.config.steps > network.shape.layers:
            raise UserError("more than layers", field="steps", value=self.config.steps, allowed=network.shape.layers)
        batches = self.calibration_batches(context)

        def heads(masks: Masks) -> Tensor:
            return self.gradients(network, batches, masks).heads

        return sensitivity_masks(full_masks(network), self.config.steps, heads)
