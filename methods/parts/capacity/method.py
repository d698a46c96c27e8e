"""The base of methods that train one embedding network for several capacities: what PrunNet and SwitchNet share."""

import copy
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import Batch, Context, Optimization, Preprocessing, Schedule, Stage, Variant
from subnetbench.methods.parts.bases.embedder import EmbeddingMethod
from subnetbench.methods.parts.capacity.config import SharedSpaceConfig
from subnetbench.methods.parts.losses.margin import margin_logits
from subnetbench.methods.parts.losses.triplet import class_balanced_queries
from subnetbench.methods.parts.networks.batch_norm import batch_norms, load_running_statistics, recalibrate
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding, retrieval_backbone
from subnetbench.methods.parts.optim.groups import WarmUpFromZero, decay_groups
from subnetbench.methods.parts.optim.schedules import Cosine, MultiStep, make_schedule
from subnetbench.methods.parts.views.drawing import CROPS_AND_FLIPS, ViewOptions

SCORES = "scores."
# Most images of a batch there; it does not follow micro-batches or ranks, on which statistics must not depend.
RECALIBRATION_BATCH = 256

ConfigT = TypeVar("ConfigT", bound=SharedSpaceConfig)


@dataclass(frozen=True)
class PlainNetwork:
    """One network on offer: the name of its variant, the share of weights it keeps, and a function that builds it."""

    name: str
    kept: float
    build: Callable[[], nn.Module]


class CapacityMethod(EmbeddingMethod[ConfigT]):
    """Trains one network for several capacities; all of them embed into one space and are tested against each other.

    Subclasses fill `build`, `training_step` and `plain_networks`. Weights of the last epoch count, not those of the
    best validation, which only looks at one capacity. Before evaluation every capacity gets batch-norm statistics of
    its own, which are saved with the model.
    """

    tiny = {"image_size": 16, "dim": 16, "capacities": (0.5,), "recalibration_images": 32}

    @abstractmethod
    def plain_networks(self, modules: nn.ModuleDict) -> list[PlainNetwork]:
        """All networks on offer, the dense one first: copies that take images and return embeddings."""

    def stages(self, context: Context) -> list[Stage]:
        return [Stage("train", self.config.epochs, select=False)]

    def classified_embedding(self, context: Context) -> ClassifiedEmbedding:
        """The configured network with projector and classifier."""
        config = self.config
        backbone = retrieval_backbone(
            config.network,
            image_size=self.preprocessing(context).size,
            channels=context.metadata.channels,
            pretrained=config.pretrained,
        )
        return ClassifiedEmbedding(
            backbone.module,
            backbone.map_shape[0],
            context.metadata.num_classes,
            dim=config.dim,
            hidden_layers=config.projector_layers,
            pooling=config.pool,
            prior_bias=config.prior_bias,
            freeze_batch_statistics=config.freeze_batch_statistics,
        )

    def preprocessing(self, context: Context) -> Preprocessing:
        usual = super().preprocessing(context)
        return replace(usual, resize_ratio=self.config.resize_ratio, interpolation=self.config.interpolation)

    def view_options(self) -> ViewOptions | None:
        config = self.config
        if config.augment == "square":
            # A square of image_size in the resized image is this share of the shorter side.
            return replace(CROPS_AND_FLIPS, square=1 / config.resize_ratio, flip=config.flip)
        return super().view_options()

    def needs(self) -> tuple[str, ...]:
        # Statistics are collected from training images, also for weights of another program.
        return super().needs() if self.config.recalibration == "none" else ("train",)

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config = self.config
        if config.samples_per_class is not None:
            generator = context.numpy_generator("order", stage.name, epoch)
            queries = class_balanced_queries(
                context.data.train.labels, generator, samples_per_class=config.samples_per_class
            )
            rows = queries.reshape(-1, config.samples_per_class)
            size = max(config.batch_size // config.samples_per_class, 1)
            batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        else:
            size = config.batch_size
            order = np.concatenate(list(super().plan_epoch(modules, stage, epoch, context)))
            batches = [order[start : start + size] for start in range(0, len(order), size)]
        # A rest of one image has no batch statistics. The published code keeps the rest on a single device.
        keeps_rest = config.preset == "paper" and context.world.size == 1
        return batches if keeps_rest or len(batches) == 1 or len(batches[-1]) == size else batches[:-1]

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        images = self.augment(indices.reshape(-1), stage, epoch, context)
        labels = context.train_labels[torch.from_numpy(indices)]
        return Batch(indices=indices, images=torch.unflatten(images, 0, indices.shape), labels=labels)

    def optimization(self, modules: nn.ModuleDict, *, scores: bool = True) -> dict[str, Optimization]:
        """One optimizer over all parameters that are trained; without `scores` none of those.

        Without weight decay, as published: with SGD the last biases, with Adam and AdamW everything called a bias.
        """
        config = self.config
        named = {
            n: p for n, p in modules.named_parameters() if p.requires_grad and (scores or not n.startswith(SCORES))
        }
        undecayed: list[Tensor] = [p for name, p in named.items() if "bias" in name]
        if config.optimizer == "sgd":
            undecayed = [p for m in modules.modules() if isinstance(m, ClassifiedEmbedding) for p in m.undecayed()]
        of_backbone = {name for name in named if "backbone." in name}
        groups = []
        for names, lr in (
            (of_backbone, config.lr * config.backbone_lr_multiplier),
            (named.keys() - of_backbone, config.lr),
        ):
            chosen = [parameter for name, parameter in named.items() if name in names]
            groups += [
                {**group, "lr": lr, "initial_lr": lr} for group in decay_groups(chosen, config.weight_decay, undecayed)
            ]
        if config.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, momentum=config.momentum)
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
            optimizer = kind(groups, eps=1e-6 if config.preset == "paper" else 1e-8)
        return {"weights": Optimization(optimizer, self.rate(), config.clip_norm)}

    def rate(self) -> Schedule:
        """The course of the learning rate."""
        config = self.config
        rise = config.warmup_epochs
        after: Any
        if config.schedule == "multistep":
            after = MultiStep(tuple(round(share * config.epochs) for share in config.milestones))
        elif config.schedule == "cosine":
            after = Cosine(warmup_epochs=rise)
        else:
            after = make_schedule(config.schedule)
        return WarmUpFromZero(rise, after) if rise else after

    def class_losses(self, embeddings: Tensor, logits: Tensor, class_weights: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each sample (n,), with the configured margin."""
        config = self.config
        if config.loss != "softmax":
            logits = margin_logits(
                embeddings.float(), class_weights, labels, config.loss, scale=config.scale, margin=config.margin
            )
        return F.cross_entropy(logits.float(), labels, reduction="none")

    def finish(self, modules: nn.ModuleDict, context: Context) -> None:
        """Collect the batch-norm statistics of all networks on offer."""
        self.state["statistics"] = {
            plain.name: self.recalibrated(plain.build(), context) for plain in self.plain_networks(modules)
        }

    def recalibrated(self, network: nn.Module, context: Context) -> dict[str, Tensor]:
        """The statistics of a plain network on training images as training sees them; empty where it keeps its own."""
        config, train = self.config, context.data.train
        if config.recalibration == "none" or config.freeze_batch_statistics or not batch_norms(network):
            return {}
        chosen = context.numpy_generator("evaluation", "recalibration").permutation(len(train))
        chosen = chosen[: config.recalibration_images]
        size = min(config.batch_size, RECALIBRATION_BATCH)
        starts = range(0, max(len(chosen) - size, 0) + 1, size)
        stage = Stage("recalibration", 0)
        batches = (self.augment(chosen[start : start + size], stage, 0, context) for start in starts)
        return recalibrate(network, batches, momentum=0.1 if config.recalibration == "exponential" else None)

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        statistics: Mapping[str, Mapping[str, Tensor]] = self.state.get("statistics", {})
        return [self.variant(plain, statistics.get(plain.name, {}), context) for plain in self.plain_networks(modules)]

    def variant(self, plain: PlainNetwork, statistics: Mapping[str, Tensor], context: Context) -> Variant:
        """A plain network with given batch-norm statistics, or with its own where there are none."""

        def finished() -> nn.Module:
            network = plain.build().eval()
            if statistics:
                load_running_statistics(network, statistics)
            return network

        return Variant(
            plain.name, finished, self.preprocessing(context), space=context.spec.run_id, capacity=plain.kept
        )

    def pairs(self, variants: list[Variant]) -> list[tuple[Variant, Variant]]:
        """Every network as query against every one as gallery."""
        return [(query, gallery) for query in variants for gallery in variants]


def samples(batch: Batch) -> tuple[Tensor, Tensor]:
    """Images (n, channels, height, width) and labels (n,) of a batch, also of one planned in groups."""
    return batch.images.flatten(0, batch.labels.dim() - 1), batch.labels.flatten()


def embedding_only(network: ClassifiedEmbedding) -> nn.Sequential:
    """A copy without the classifier: a plain network from images to embeddings, with the same names inside."""
    parts = OrderedDict(
        (name, copy.deepcopy(network.get_submodule(name))) for name in ("backbone", "pool", "projector")
    )
    return nn.Sequential(parts)
