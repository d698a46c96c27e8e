"""Metric learning by the losses, miners and samplers of pytorch-metric-learning, under one roof."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from pytorch_metric_learning import losses, miners
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Choice,
    Context,
    LogUniform,
    Optimization,
    Stage,
    Step,
    UserError,
    register_method,
)
from subnetbench.methods.parts.bases.embedder import EmbeddingConfig, EmbeddingMethod, make_optimizer
from subnetbench.methods.parts.losses.hgsl import DecorrelationRegularizer
from subnetbench.methods.parts.losses.pml_adapter import class_balanced_batches
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.optim.schedules import make_schedule


@dataclass(frozen=True)
class Kind:
    """A loss of the library: its class, what our options are called there, and what it needs.

    `miner` and `sampler` are the choices under `recommended`. A loss `of_samples` is a mean over samples, so batches
    may be cut and spread at will; the others look at all pairs, or at sums over a class, of the whole batch.
    """

    loss: type[nn.Module]
    options: dict[str, str]
    proxies: bool
    of_samples: bool
    miner: str = "none"
    sampler: str = "shuffle"


_SCALE_AND_MARGIN = {"scale": "scale", "margin": "margin"}
KINDS = {
    "triplet": Kind(
        losses.TripletMarginLoss, {"margin": "margin"}, False, False, miner="triplet_margin", sampler="m_per_class"
    ),
    "multi_similarity": Kind(
        losses.MultiSimilarityLoss,
        {"alpha": "alpha", "beta": "beta", "base": "base"},
        False,
        False,
        miner="multi_similarity",
        sampler="m_per_class",
    ),
    "proxy_anchor": Kind(losses.ProxyAnchorLoss, {"scale": "alpha", "margin": "margin"}, True, False),
    "arcface": Kind(losses.ArcFaceLoss, _SCALE_AND_MARGIN, True, True),
    "cosface": Kind(losses.CosFaceLoss, _SCALE_AND_MARGIN, True, True),
    "normalised_softmax": Kind(losses.NormalizedSoftmaxLoss, {"temperature": "temperature"}, True, True),
}
MINERS: dict[str, Callable[["MetricLearning.Config"], nn.Module]] = {
    "multi_similarity": lambda config: miners.MultiSimilarityMiner(epsilon=config.miner_margin),
    "triplet_margin": lambda config: miners.TripletMarginMiner(
        margin=config.miner_margin, type_of_triplets=config.triplets
    ),
    "batch_hard": lambda config: miners.BatchHardMiner(),
}


@register_method("metric_learning")
class MetricLearning(EmbeddingMethod["MetricLearning.Config"]):
    """Triplet, multi-similarity, proxy-anchor, ArcFace, CosFace or normalised softmax on any backbone.

    An option that is null has the library's own default. Proxies and classifier weights are trained by an optimizer
    group with its own rate, and are no part of the network that is evaluated.
    """

    paper = "Musgrave, Belongie, Lim, PyTorch Metric Learning, arXiv 2008.09164; the papers of its losses"
    tiny = {"image_size": 16, "dim": 16}

    class Config(EmbeddingConfig):
        searched_when = {
            "scale": {"loss": tuple(name for name, kind in KINDS.items() if "scale" in kind.options)},
            "proxy_lr": {"loss": tuple(name for name, kind in KINDS.items() if kind.proxies)},
        }

        loss: Annotated[
            Literal["triplet", "multi_similarity", "proxy_anchor", "arcface", "cosface", "normalised_softmax"],
            Field(description="what is minimised"),
            Choice(tuple(KINDS)),
        ] = "multi_similarity"
        miner: Annotated[
            Literal["recommended", "none", "multi_similarity", "triplet_margin", "batch_hard"],
            Field(description="which pairs or triplets of a batch count; only for triplet and multi_similarity"),
        ] = "recommended"
        miner_margin: Annotated[float, Field(ge=0, description="margin (or epsilon) of the miner")] = 0.1
        triplets: Annotated[
            Literal["all", "hard", "semihard"], Field(description="which triplets triplet_margin returns")
        ] = "semihard"
        sampler: Annotated[
            Literal["recommended", "shuffle", "m_per_class"],
            Field(description="m_per_class: batches of samples_per_class images of each of some classes"),
        ] = "recommended"
        samples_per_class: Annotated[int, Field(ge=2, description="of m_per_class; divides batch_size")] = 4
        margin: Annotated[
            float | None, Field(ge=0, description="of triplet, proxy_anchor, cosface; of arcface in degrees")
        ] = None
        scale: Annotated[
            float | None, Field(gt=0, description="of arcface and cosface; alpha of proxy_anchor"), LogUniform(8, 128)
        ] = None
        temperature: Annotated[float | None, Field(gt=0, description="of normalised_softmax")] = None
        alpha: Annotated[float | None, Field(gt=0, description="multi_similarity: weight of positive pairs")] = None
        beta: Annotated[float | None, Field(gt=0, description="multi_similarity: weight of negative pairs")] = None
        base: Annotated[float | None, Field(description="multi_similarity: similarity that counts as neutral")] = None
        proxy_lr: Annotated[
            float, Field(gt=0, description="learning rate of proxies and classifier weights"), LogUniform(1e-4, 1.0)
        ] = 0.01
        proxy_weight_decay: Annotated[float, Field(ge=0, description="weight decay of the same")] = 0.0
        decorrelation_weight: Annotated[float, Field(ge=0, description="weight of HGSL's decorrelation of proxies")] = (
            0.0
        )

        @model_validator(mode="after")
        def _fits_the_loss(self) -> Self:
            kind = KINDS[self.loss]
            for name in ("margin", "scale", "temperature", "alpha", "beta", "base"):
                if getattr(self, name) is not None and name not in kind.options:
                    raise ValueError(f"{name}: the loss {self.loss} has none")
            if kind.proxies and self.miner not in ("recommended", "none"):
                raise ValueError(f"miner: the loss {self.loss} compares with proxies, not with mined pairs")
            if self.decorrelation_weight and not kind.proxies:
                raise ValueError(f"decorrelation_weight: the loss {self.loss} has no proxies")
            if self.miner in ("triplet_margin", "batch_hard") and self.loss == "multi_similarity":
                raise ValueError("miner: multi_similarity wants pairs, not triplets")
            if not kind.of_samples and self.micro_batch_size and self.micro_batch_size < self.batch_size:
                raise ValueError(f"micro_batch_size: the loss {self.loss} needs the whole batch at once")
            if self.samples == "m_per_class" and self.batch_size % self.samples_per_class:
                raise ValueError(f"batch_size: {self.batch_size} is no multiple of {self.samples_per_class}")
            return self

        @property
        def samples(self) -> str:
            """The sampler that is meant."""
            return KINDS[self.loss].sampler if self.sampler == "recommended" else self.sampler

    def build(self, context: Context) -> nn.ModuleDict:
        config, kind = self.config, KINDS[self.config.loss]
        modules = super().build(context)
        options: dict[str, object] = {
            theirs: getattr(config, ours) for ours, theirs in kind.options.items() if getattr(config, ours) is not None
        }
        if kind.proxies:
            dim = cast(EmbeddingNetwork, modules["network"]).dim
            options |= {"num_classes": context.metadata.num_classes, "embedding_size": dim}
        if config.decorrelation_weight:
            options |= {
                "weight_regularizer": DecorrelationRegularizer(),
                "weight_reg_weight": config.decorrelation_weight,
            }
        modules["loss"] = kind.loss(**options)
        return modules

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        groups = cast(EmbeddingNetwork, modules["network"]).parameter_groups(config.lr, config.weight_decay)
        proxies = list(modules["loss"].parameters())
        if proxies:
            groups.append({"params": proxies, "lr": config.proxy_lr, "weight_decay": config.proxy_weight_decay})
        return {"weights": Optimization(make_optimizer(config.optimizer, groups), make_schedule(config.schedule))}

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config, labels = self.config, context.data.train.labels
        if config.samples == "shuffle":
            batches = list(super().plan_epoch(modules, stage, epoch, context))
        else:
            batches = self._class_balanced(labels, context.numpy_generator("order", stage.name, epoch))
        if KINDS[config.loss].of_samples:
            return batches
        # Embeddings that ranks exchange are equally many on each, and the smallest pair is two.
        ranks = context.world.size
        return [whole for batch in batches if len(whole := batch[: len(batch) // ranks * ranks]) >= 2 * ranks]

    def _class_balanced(self, labels: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        size, each = self.config.batch_size, self.config.samples_per_class
        most = len(np.unique(labels)) * each
        if size > most or size > len(labels):
            raise UserError(
                f"more than {each} images of each class", field="config.batch_size", value=size, allowed=f"<= {most}"
            )
        return class_balanced_batches(labels, generator, size=size, samples_per_class=each)

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        reduction = "mean" if KINDS[self.config.loss].of_samples else "gathered"
        step.backward(lambda batch: self.loss(modules, batch, step), reduction=reduction)
        step.update()

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        config, kind = self.config, KINDS[self.config.loss]
        embeddings, labels = modules["network"](batch.images), batch.labels
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            if not kind.of_samples:
                embeddings, labels = step.gather(embeddings), step.world.gather_rows(labels)
            name = kind.miner if config.miner == "recommended" else config.miner
            mined = None if name == "none" else MINERS[name](config)(embeddings, labels)
            return {"loss": modules["loss"](embeddings, labels, mined)}
