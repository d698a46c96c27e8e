"""Base of methods that prune heads and neurons of a ViT image encoder with gradients on calibration captions."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import Choice, Context, DataError, Variant, Weights, WeightsConfig, fill
from subnetbench.methods.parts.text_image.base import (
    DerivedConfig,
    DerivedEncoder,
    derived,
    logit_scale_of,
    text_encoder_of,
    vit_of,
)
from subnetbench.methods.parts.vit.fisher import UnitCosts
from subnetbench.methods.parts.vit.foreign import masked_vit_tensors
from subnetbench.methods.parts.vit.model import PlainViT
from subnetbench.methods.parts.vit.pruning import (
    CalibrationGradients,
    MaskedViT,
    Masks,
    calibration_gradients,
    compact,
    full_masks,
    random_masks,
    symmetric_clip_loss,
)


class PrunedEncoderConfig(DerivedConfig, WeightsConfig):
    """Options of every pruning method for its calibration."""

    calibration_images: Annotated[
        int, Field(ge=1, description="most training images for the gradients"), Choice((64, 128, 256, 512, 1024))
    ] = 1024
    calibration_batch: Annotated[
        int, Field(ge=2, description="pairs of image and caption in a batch loss"), Choice((8, 16, 32, 64))
    ] = 32
    random_control: Annotated[
        bool, Field(description="also offer an encoder with as many heads and neurons drawn at random: equal MACs")
    ] = True


ConfigT = TypeVar("ConfigT", bound=PrunedEncoderConfig)


class PrunedEncoder(DerivedEncoder[ConfigT]):
    """Holds the ViT under masks; variants are compacted, so that they are faster and not only sparser."""

    @abstractmethod
    def find_masks(self, vit: nn.Module, context: Context) -> Masks:
        """Factors of all heads and neurons, 0 for what is pruned."""

    def rebuild(self, context: Context) -> nn.ModuleDict:
        vit = vit_of(self.teacher(context), context.device)
        return nn.ModuleDict({"network": MaskedViT(vit, full_masks(vit))})

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        network = cast(MaskedViT, modules["network"])
        fill(network, masked_vit_tensors(weights, network.vit.shape))

    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        network = cast(MaskedViT, modules["network"])
        masks = self.find_masks(network.vit, context)
        network.heads.copy_(masks.heads)
        network.neurons.copy_(masks.neurons)

    def vit(self, module: nn.Module) -> PlainViT:
        """A module that is known to be a plain ViT."""
        return cast(PlainViT, module)

    def calibration_batches(self, context: Context, most: int | None = None) -> "_Batches":
        """Batches of (images, embeddings of one caption of each), of distinct images drawn by the run's seed."""
        return _Batches(self, context, min(most or self.config.calibration_images, self.config.calibration_images))

    def gradients(self, vit: PlainViT, batches: "_Batches", masks: Masks) -> CalibrationGradients:
        """Gradients of CLIP's loss between the masked encoder's images and the dense texts."""
        scale = logit_scale_of(self.teacher(batches.context))
        return calibration_gradients(vit, batches, masks, partial(symmetric_clip_loss, logit_scale=scale))

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        network, teacher = cast(MaskedViT, modules["network"]), self.teacher(context)
        masks = Masks(network.heads, network.neurons)
        choices = {"pruned": masks}
        # What an imported file has removed is not in it, so nothing else can be kept instead.
        if self.config.random_control and not self.config.imported:
            choices["random"] = random_masks(masks.kept(), context.seed)
        shape = network.vit.shape
        costs = UnitCosts.of(1 + shape.patches, shape.width, shape.head_width)
        offered = []
        for name, chosen in choices.items():
            variant = derived(teacher, name, compact(network.vit, chosen))
            variant.capacity = costs.total(chosen) / costs.total(full_masks(network.vit))
            variant.details["heads_kept"] = float((chosen.heads != 0).sum())
            variant.details["neurons_kept"] = float((chosen.neurons != 0).sum())
            offered.append(variant)
        return offered


class _Batches:
    """Calibration batches, which may be gone through several times."""

    def __init__(self, method: PrunedEncoder[Any], context: Context, count: int) -> None:
        train = context.data.train
        if train.captions is None:
            raise DataError("calibration needs captions")
        self.context, self._captions = context, train.captions
        self._teacher = method.teacher(context)
        size = method.config.calibration_batch
        with_captions = np.array([i for i, own in enumerate(train.captions) if own])
        order = context.numpy_generator("order", "calibration").permutation(with_captions)[:count]
        self._batches = [order[start : start + size] for start in range(0, len(order), size)]
        # A batch of one pair has no wrong answer and so no gradient.
        self._batches = [batch for batch in self._batches if len(batch) > 1]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        texts, device = text_encoder_of(self._teacher), self.context.device
        for batch in self._batches:
            images = self._teacher.preprocessing(self.context.data.train.images, batch, device)
            with torch.no_grad():
                targets = texts.embed([self._captions[i][0] for i in batch]).clone().to(device)
            yield images, targets
