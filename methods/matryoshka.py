"""Matryoshka embeddings: the leading numbers of an embedding are an embedding, of any size (Kusupati et al. 2022)."""

import copy
import re
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    LogUniform,
    Optimization,
    Score,
    Stage,
    Step,
    Uniform,
    UserError,
    Variant,
    evaluate_variants,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.bases.embedder import EmbeddingConfig, EmbeddingMethod, make_optimizer
from subnetbench.methods.parts.losses.nested import ClassLoss, NestedClassifiers
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.optim.schedules import make_schedule

SMALLEST = 8
_NAME = re.compile(r"dim_([1-9]\d*)")
# The direction of a single number is one of two, and an angle between them has no gradient.
Size = Annotated[int, Field(ge=2)]


@register_method("matryoshka")
class Matryoshka(EmbeddingMethod["Matryoshka.Config"]):
    """One network whose embeddings can be cut off after any of several sizes, trained by a class loss at each of them.

    The variant `dim_16` puts out the first 16 numbers, as a unit vector. Every size is tested as query against every size
    as gallery, by the cosine of what both have: a longer gallery is searched as its first numbers alone would be. With
    `norms: whole` its vectors are left as they were indexed, of length 1 as a whole. Sizes that were not trained can be
    evaluated too.

    `training: full` is the control: the loss at the full size alone, cut off afterwards.
    """

    paper = "Kusupati et al., Matryoshka Representation Learning, arXiv 2205.13147"
    tiny = {"network": "cnn8-8", "image_size": 16, "dim": 16}

    class Config(EmbeddingConfig):
        searched_when = {
            "scale": {"loss": ("arcface", "cosface")},
            "margin": {"loss": ("arcface", "cosface")},
        }

        dim: Annotated[int, Field(ge=2, description="size of the whole embedding")] = 128
        dims: Annotated[
            tuple[Size, ...] | None,
            Field(
                min_length=1,
                description=f"sizes that are trained beside dim [default: its half, the half of that, down to {SMALLEST}]",
            ),
            operating_point,
        ] = None
        training: Annotated[
            Literal["nested", "full"],
            Field(description="nested: the loss at all sizes; full: at dim alone (the control)"),
        ] = "nested"
        tied: Annotated[
            bool, Field(description="one classifier, cut off with the embedding (MRL-E), instead of one a size")
        ] = False
        norms: Annotated[
            Literal["part", "whole"],
            Field(
                description="a gallery longer than the query is divided by the norms of what is compared, or of the whole "
                "embeddings (an index of unit vectors, left as it is)"
            ),
        ] = "part"
        loss: Annotated[ClassLoss, Field(description="cross-entropy over classes, with which margin")] = "softmax"
        scale: Annotated[
            float, Field(gt=0, description="arcface, cosface: factor of the cosines"), LogUniform(8, 128)
        ] = 30.0
        margin: Annotated[float, Field(ge=0, description="arcface, cosface: margin"), Uniform(0.0, 0.5)] = 0.3
        classifier_lr: Annotated[
            float, Field(gt=0, description="learning rate of the classifiers"), LogUniform(1e-4, 1.0)
        ] = 0.01

        @model_validator(mode="after")
        def _nested(self) -> Self:
            if self.dims is not None and (max(self.dims) > self.dim or len(set(self.dims)) < len(self.dims)):
                raise ValueError(f"dims: {list(self.dims)} must be different and at most dim, {self.dim}")
            return self

        def sizes(self) -> list[int]:
            """All sizes on offer, the full one first."""
            if self.dims is not None:
                return sorted({self.dim, *self.dims}, reverse=True)
            found = [self.dim]
            while found[-1] // 2 >= SMALLEST:
                found.append(found[-1] // 2)
            return found

    def build(self, context: Context) -> nn.ModuleDict:
        config, modules = self.config, super().build(context)
        modules["classifiers"] = NestedClassifiers(
            config.sizes() if config.training == "nested" else [config.dim],
            context.metadata.num_classes,
            tied=config.tied,
            loss=config.loss,
            scale=config.scale,
            margin=config.margin,
        )
        return modules

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        groups = cast(EmbeddingNetwork, modules["network"]).parameter_groups(config.lr, config.weight_decay)
        classifiers = list(modules["classifiers"].parameters())
        groups.append({"params": classifiers, "lr": config.classifier_lr, "weight_decay": config.weight_decay})
        return {"weights": Optimization(make_optimizer(config.optimizer, groups), make_schedule(config.schedule))}

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        network = cast(EmbeddingNetwork, modules["network"])
        embeddings = network.whitening(network.descriptors(batch.images))
        with torch.autocast(embeddings.device.type, enabled=False):
            losses: dict[int, Tensor] = modules["classifiers"](embeddings.float(), batch.labels)
        return {"loss": torch.stack(list(losses.values())).sum(), **{f"loss_{m}": each for m, each in losses.items()}}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        return [self._variant(size, modules, context) for size in self.config.sizes()]

    def variant_on_demand(self, name: str, modules: nn.ModuleDict, context: Context) -> Variant | None:
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        size, whole = int(found[1]), self.config.dim
        if not 2 <= size <= whole:
            raise UserError(
                "the embedding has no such part", field="variant", value=name, allowed=f"dim_2 to dim_{whole}"
            )
        return self._variant(size, modules, context)

    def _variant(self, size: int, modules: nn.ModuleDict, context: Context) -> Variant:
        network = cast(EmbeddingNetwork, modules["network"])
        return Variant(
            f"dim_{size}",
            partial(cut_off, network, size),
            self.preprocessing(context),
            space=context.spec.run_id,
            capacity=1.0,
            details={"embedding_size": float(size)},
        )

    def measure(self, variants: list[Variant], context: Context, split: str) -> list[Score]:
        if self.config.norms == "whole":
            filled = [replace(each, build=partial(self._filled_up, each)) for each in variants]
            return evaluate_variants(filled, context.evaluator, split, pairs=all_pairs)
        # Cosines of what both have are those of the shorter one alone, whichever is searched.
        scores = super().measure(variants, context, split)
        short = sorted(variants, key=lambda each: float(each.details["embedding_size"]))
        for i, shorter in enumerate(short):
            own = [each for each in scores if each.variant == each.gallery_variant == shorter.name]
            for longer in short[i + 1 :]:
                scores += [replace(each, gallery_variant=longer.name) for each in own]
                scores += [replace(each, variant=longer.name) for each in own]
        return scores

    def _filled_up(self, variant: Variant) -> nn.Module:
        return FilledUp(variant.build(), self.config.dim).eval()


def all_pairs(variants: list[Variant]) -> list[tuple[Variant, Variant]]:
    """Every network as query against every one as gallery."""
    return [(query, gallery) for query in variants for gallery in variants]


def cut_off(network: EmbeddingNetwork, size: int) -> EmbeddingNetwork:
    """A plain network, in evaluation mode, that puts out the first `size` numbers of another one's embeddings, as unit
    vectors (n, size); it computes no others."""
    shorter = copy.deepcopy(network).eval()
    whole = cast(nn.Linear, shorter.whitening)
    shorter.whitening = nn.Linear(whole.in_features, size, device=whole.weight.device)
    with torch.no_grad():
        shorter.whitening.weight.copy_(whole.weight[:size])
        shorter.whitening.bias.copy_(whole.bias[:size])
    shorter.dim = size
    return shorter.eval()


class FilledUp(nn.Module):
    """The embeddings of a network with zeros behind them, (n, dim): products with longer ones leave out what it lacks."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__()
        self.network, self.dim = network, dim

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.network(images)
        return F.pad(embeddings, (0, self.dim - embeddings.shape[1]))
