"""Token merging: a trained ViT encoder that averages similar tokens on the way, without any training (ToMe).

A cheap level of a cascade that, unlike token masking, looks at every patch.
"""

from typing import Annotated, cast

from pydantic import Field
from torch import nn

from subnetbench.harness.method import Choice, Context, Variant, operating_point, register_method
from subnetbench.methods.parts.text_image.base import DerivedConfig, DerivedEncoder, derived, vit_of
from subnetbench.methods.parts.vit.token_merging import MergeSchedule, TokenMergedViT, merges_by_layer


@register_method("token_merging")
class TokenMerging(DerivedEncoder["TokenMerging.Config"]):
    """Every layer merges the pairs of tokens whose keys are most alike; what was merged weighs more in attention."""

    paper = "Bolya et al., Token Merging: Your ViT But Faster, arXiv 2210.09461"

    class Config(DerivedConfig):
        merged_share: Annotated[
            float,
            Field(ge=0, lt=1, description="fraction of the patches merged away by the last layer"),
            operating_point,
        ] = 0.5
        schedule: Annotated[
            MergeSchedule,
            Field(description="constant: as many in each layer; decreasing: linearly to none"),
            Choice(("constant", "decreasing")),
        ] = "constant"
        proportional: Annotated[
            bool, Field(description="attention counts a token as often as tokens were merged into it")
        ] = True

    def needs(self) -> tuple[str, ...]:
        return ()

    def rebuild(self, context: Context) -> nn.ModuleDict:
        config, vit = self.config, vit_of(self.teacher(context), context.device)
        merges = merges_by_layer(vit.shape.patches, vit.shape.layers, config.merged_share, config.schedule)
        return nn.ModuleDict({"network": TokenMergedViT(vit, merges, proportional=config.proportional)})

    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        """Nothing is learned."""

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        network = cast(TokenMergedViT, modules["network"])
        variant = derived(self.teacher(context), "merged", network)
        # What the last layer attends to.
        variant.details["tokens"] = float(1 + network.vit.shape.patches - sum(network.merges[:-1]))
        return [variant]
