"""The base of methods that search a subnetwork of frozen random weights, and what the sampled ones add."""

from abc import abstractmethod
from functools import partial
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import (
    Context,
    LogUniform,
    Preprocessing,
    Score,
    Split,
    Stage,
    Variant,
    classification_metrics,
    operating_point,
)
from subnetbench.methods.parts.bases.classifier import ClassifierConfig, Schedule
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network, masked_network
from subnetbench.methods.parts.masks.masks import Mask
from subnetbench.methods.parts.masks.order_statistics import removal_rank, smallest
from subnetbench.methods.parts.masks.statistics import mask_statistics
from subnetbench.methods.parts.masks.training import MaskedClassifierMethod
from subnetbench.methods.parts.networks.initialisation import kaiming_normal_, signed_constant_

EVALUATION_BATCH = 256
ASLP_RECIPE = {"epochs": 1000, "batch_size": 256, "patience": 100}
"""How long the released code of ASLP searches, by all of its methods."""


@torch.no_grad()
def forced_weights(masked: MaskedModel, sparsity: float) -> dict[str, Tensor]:
    """The weights that remain when the share `sparsity` of each layer's lowest scores is removed (ties all stay)."""
    weights = {}
    for layer, name in enumerate(masked.names):
        score = masked.score(name)
        keep = score >= smallest(score, [removal_rank(sparsity, score.numel())])[0]
        weights[name] = masked.weight(name) * keep * masked.mask.gain(layer, keep)
    return weights


class FrozenSearchConfig(ClassifierConfig):
    """Methods that search in a network of frozen random weights."""

    signed_constant: Annotated[
        Literal["none", "all", "conv"],
        Field(description="replace weights by their sign times one magnitude a layer; conv: not in linear layers"),
    ] = "none"


ConfigT = TypeVar("ConfigT", bound=FrozenSearchConfig)


class FrozenSearch(MaskedClassifierMethod[ConfigT]):
    """Searches a mask over frozen random weights; `variants` offers the finalised plain network."""

    tiny = {"network": "conv2", "image_size": 8}

    @abstractmethod
    def mask(self) -> Mask:
        """The mask of this method, from its config."""

    def build(self, context: Context) -> nn.ModuleDict:
        network = self.plain_network(context)
        generator = context.torch_generator("init", "weights")
        kaiming_normal_(network, generator)
        if self.config.signed_constant != "none":
            signed_constant_(network, self.config.signed_constant)
        return nn.ModuleDict({"network": mask_network(network, self.mask(), generator=generator)})

    def preprocessing(self, context: Context) -> Preprocessing:
        usual = super().preprocessing(context)
        if self.config.preset == "paper" and not self.config.augment:
            # The ASLP code's switch for augmentation also switches normalisation off.
            none, one = (0.0,) * len(usual.mean), (1.0,) * len(usual.std)
            return Preprocessing(size=usual.size, mean=none, std=one)
        return usual

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        return [Variant("subnetwork", lambda: masked.finalise().eval(), self.preprocessing(context))]


class SampledSearchConfig(FrozenSearchConfig):
    """Methods whose masks are sampled during the search."""

    paper_defaults = {**ASLP_RECIPE, "sample_per": "batch"}

    lr: Annotated[float, Field(gt=0, description="learning rate of the scores"), LogUniform(1.0, 200.0)] = 50.0
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on the scores")] = 0.0
    schedule: Schedule = "constant"
    initial_value: Annotated[float, Field(description="scores at the start; 0 keeps a weight with probability 1/2")] = (
        0.0
    )
    sampled_masks: Annotated[
        int, Field(ge=0, description="masks sampled for the metrics sampled_top1 and sampled_top1_std")
    ] = 10
    sample_per: Annotated[
        Literal["pass", "batch"], Field(description="one mask for a pass over the test split, or a new one a batch")
    ] = "pass"
    forced_sparsities: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], ...],
        Field(description="also offer variants `forced-S` that remove the share S of each layer, lowest scores first"),
        operating_point,
    ] = ()


SampledT = TypeVar("SampledT", bound=SampledSearchConfig)


class SampledSearch(FrozenSearch[SampledT]):
    """Searches with random masks. The thresholded network is the variant; sampled masks are a metric of their own.

    The search does not control its sparsity. `forced_sparsities` cuts the trained scores at other thresholds, which is
    not what any of the papers evaluates; those variants are named `forced-...` for that.

    Differences of `preset: paper`, which follows the ASLP code: validation uses sampled masks on augmented images,
    a new mask is sampled for every test batch, `augment: false` also switches normalisation off, and signed
    constants reach convolutions only (set `signed_constant: conv`).
    """

    def evaluate(self, modules: nn.ModuleDict, context: Context, split: str = "test") -> list[Score]:
        scores = super().evaluate(modules, context, split)
        masked = masked_network(modules)
        generator = context.torch_generator("evaluation", "masks", device=context.device)
        draws = [
            self._sampled_metrics(masked, context.data.split(split), context, generator)["top1"]
            for _ in range(self.config.sampled_masks)
        ]
        masked.draw(generator)
        statistics, _ = mask_statistics(masked)
        shares: dict[str, float | None] = {
            "expected_keep": statistics.expected_keep,
            "sampled_keep": statistics.sampled_keep,
            "undecided": statistics.undecided,
        }
        own = [Score(metric=k, value=float(v), variant="subnetwork") for k, v in shares.items() if v is not None]
        if draws:
            spread = {"sampled_top1": float(np.mean(draws)), "sampled_top1_std": float(np.std(draws))}
            own += [Score(metric=k, value=v, split=split, variant="subnetwork") for k, v in spread.items()]
        return scores + own

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)

        def cut(sparsity: float) -> nn.Module:
            return masked.finalise(forced_weights(masked, sparsity)).eval()

        forced = [
            Variant(f"forced-{sparsity:g}", partial(cut, sparsity), self.preprocessing(context))
            for sparsity in self.config.forced_sparsities
        ]
        return [*super().variants(modules, context), *forced]

    def validate(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, float]:
        if self.config.preset != "paper":
            return super().validate(modules, stage, context)
        count = self.state["validations"] = self.state.get("validations", 0) + 1
        generator = context.torch_generator("evaluation", stage.name, count, device=context.device)
        return self._sampled_metrics(masked_network(modules), context.data.validation, context, generator, count)

    def _sampled_metrics(
        self,
        masked: MaskedModel,
        split: Split,
        context: Context,
        generator: torch.Generator,
        augmentation: int | None = None,
    ) -> dict[str, float]:
        """Classification metrics under sampled masks: one for the pass, or a new one for every batch.

        With a number for `augmentation`, images are augmented as in training if the config says so.
        """
        paper = self.config.preset == "paper"
        preprocessing = self.preprocessing(context)
        batches = []
        masked.eval()
        masked.draw(generator)
        for start in range(0, len(split), EVALUATION_BATCH):
            indices = np.arange(start, min(start + EVALUATION_BATCH, len(split)))
            if start and (paper or self.config.sample_per == "batch"):
                masked.draw(generator)
            if augmentation is not None and self.config.augment:
                images = self.augmented(split.images, indices, context, "validation", augmentation)
            else:
                images = preprocessing(split.images, indices, context.device)
            with torch.no_grad():
                batches.append((masked(images), torch.from_numpy(split.labels[indices])))
        return classification_metrics(batches)
