"""GraSP: prune once before training so that gradients keep flowing (Wang, Zhang, Grosse, ICLR 2020)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from subnetbench.harness.method import Choice, Context, LogUniform, register_method
from subnetbench.methods.parts.masks.at_start import SparseTraining, SparseTrainingConfig
from subnetbench.methods.parts.masks.magnitude import largest_masks
from subnetbench.methods.parts.masks.masked_model import MaskedModel
from subnetbench.methods.parts.masks.saliency import Examples, grasp_scores


@register_method("grasp")
class Grasp(SparseTraining["Grasp.Config"]):
    """Removes the fresh weights without which the norm of the gradient falls least; trains the others from scratch."""

    paper = "Wang, Zhang, Grosse, Picking Winning Tickets Before Training by Preserving Gradient Flow, arXiv 2002.07376"

    class Config(SparseTrainingConfig):
        images_per_class: Annotated[
            int,
            Field(ge=1, description="training images of each class that the flow is measured on"),
            Choice((5, 10, 25)),
        ] = 10
        temperature: Annotated[
            float, Field(gt=0, description="logits are divided by it before the loss"), LogUniform(1.0, 500.0)
        ] = 200.0

    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        config = self.config
        size = config.micro_batch_size or config.batch_size
        examples = Examples.of_each_class(context, self.preprocessing(context), config.images_per_class, size)
        harm = {name: -score for name, score in grasp_scores(masked, examples, config.temperature).items()}
        return largest_masks(harm, config.sparsity, "global")
