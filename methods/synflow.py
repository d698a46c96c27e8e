"""SynFlow: prune before training without looking at data (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from subnetbench.harness.method import Choice, Context, register_method
from subnetbench.methods.parts.masks.at_start import SparseTraining, SparseTrainingConfig
from subnetbench.methods.parts.masks.masked_model import MaskedModel
from subnetbench.methods.parts.masks.saliency import synflow_masks


@register_method("synflow")
class SynFlow(SparseTraining["SynFlow.Config"]):
    """Removes, in many small steps, the fresh weights that carry least flow from input to output; trains the others."""

    paper = (
        "Tanaka, Kunin, Yamins, Ganguli, Pruning neural networks without any data by iteratively conserving synaptic "
        "flow, arXiv 2006.05467"
    )
    tiny = {**SparseTraining.tiny, "iterations": 3}

    class Config(SparseTrainingConfig):
        iterations: Annotated[
            int, Field(ge=1, description="steps in which weights are removed"), Choice((1, 10, 100))
        ] = 100

    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        side = self.preprocessing(context).size
        shape = (context.metadata.channels, side, side)
        return synflow_masks(masked, self.config.sparsity, self.config.iterations, shape)
