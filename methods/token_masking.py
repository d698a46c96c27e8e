"""Token masking: a trained ViT encoder that looks at part of its patches, without any training.

The cheap level of a cascade; Li et al. (FLIP, arXiv 2212.00794) drop tokens in training, the cascades of Hönig,
Ackermann and Chi at search time.
"""

from typing import Annotated, cast

from pydantic import Field
from torch import nn

from subnetbench.harness.method import Choice, Context, Variant, operating_point, register_method
from subnetbench.methods.parts.text_image.base import DerivedConfig, DerivedEncoder, derived, vit_of
from subnetbench.methods.parts.vit.token_masking import Pattern, TokenMaskedViT, kept_patches


@register_method("token_masking")
class TokenMasking(DerivedEncoder["TokenMasking.Config"]):
    """One fixed mask an encoder, so that an embedding never depends on the batch; pixels are gathered first.

    `preset: paper` lays the positions of other patches over the kept ones, as the published code does (which also
    draws a new mask for every batch; that is not reproduced).
    """

    paper = "Li et al., Scaling Language-Image Pre-training via Masking, arXiv 2212.00794"

    class Config(DerivedConfig):
        masked_share: Annotated[
            float, Field(ge=0, le=1, description="fraction of the patches left out"), operating_point
        ] = 0.5
        pattern: Annotated[
            Pattern, Field(description="which patches are kept"), Choice(("random", "grid", "centre"))
        ] = "random"

    def needs(self) -> tuple[str, ...]:
        return ()

    def rebuild(self, context: Context) -> nn.ModuleDict:
        vit = vit_of(self.teacher(context), context.device)
        kept = kept_patches(vit.shape.patches, self.config.masked_share, self.config.pattern, context.seed)
        published = self.config.preset == "paper"
        return nn.ModuleDict({"network": TokenMaskedViT(vit, kept, published_positions=published)})

    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        """Nothing is learned."""

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        network = cast(TokenMaskedViT, modules["network"])
        variant = derived(self.teacher(context), "masked", network)
        variant.details["tokens"] = float(1 + len(network.kept))
        return [variant]
