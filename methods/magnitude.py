"""Magnitude pruning: train, remove the smallest weights once, fine-tune (Han et al., NeurIPS 2015)."""

from torch import Tensor

from subnetbench.harness.method import Context, register_method
from subnetbench.methods.parts.masks.magnitude import magnitude_masks
from subnetbench.methods.parts.masks.masked_model import MaskedModel
from subnetbench.methods.parts.masks.pruning import PruningConfig, PruningMethod


@register_method("magnitude")
class Magnitude(PruningMethod[PruningConfig]):
    """One-shot pruning by |weight|, over the whole network or layer by layer, with fine-tuning."""

    paper = "Han, Pool, Tran, Dally, Learning both Weights and Connections, arXiv 1506.02626"

    class Config(PruningConfig):
        pass

    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        weights = {name: masked.weight(name) for name in masked.names}
        return magnitude_masks(weights, self.config.sparsity, self.config.scope)
