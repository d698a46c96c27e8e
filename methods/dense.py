"""Ordinary training of all weights: the baseline that every smaller network is compared with."""

from torch import nn

from subnetbench.harness.method import Context, Optimization, Stage, Variant, register_method
from subnetbench.methods.parts.bases.classifier import ClassifierConfig, ClassifierMethod


@register_method("dense")
class Dense(ClassifierMethod[ClassifierConfig]):
    """All weights are trained by SGD; nothing is removed. Hyper-parameters are this project's own choice."""

    tiny = {"network": "conv2", "image_size": 8}

    class Config(ClassifierConfig):
        pass

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.plain_network(context)})

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return {"weights": self.sgd(modules["network"].parameters())}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        return [self.variant("dense", modules["network"], context, capacity=1.0)]
