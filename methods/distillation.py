"""Distillation for retrieval: a student sees small images and embeds them where a frozen teacher puts large ones.

Suma and Tolias 2023 (RAML), with the losses of its neighbours as choices. A gallery embedded once by the teacher is
then searched with queries that cost a fraction of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.artifacts import Artifact
from subnetbench.harness.context import Context
from subnetbench.harness.data import Preprocessing
from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.retrieval import split_metrics
from subnetbench.harness.feature_cache import cached_outputs, cached_rows, weights_digest
from subnetbench.harness.method import Optimization, Stage, Variant
from subnetbench.harness.registry import register_method
from subnetbench.harness.training.step import Batch, Step
from subnetbench.methods.parts.distillation_losses import distillation_loss
from subnetbench.methods.parts.distilling import DistillationConfig, RenderedInTurn
from subnetbench.methods.parts.embedding import make_optimizer
from subnetbench.methods.parts.embedding_network import Descriptors, EmbeddingNetwork, trainable_copy
from subnetbench.methods.parts.pooling import l2_normalise
from subnetbench.methods.parts.schedules import LearningRateSchedule, make_schedule, raml_schedule
from subnetbench.methods.parts.views import ViewDraws, coupled_views, draw_views
from subnetbench.methods.parts.whitening import matching_pairs, pca_whitening, supervised_whitening
from subnetbench.methods.triplet import Triplet

# What a teacher that nobody describes takes over from the student.
_SHARED = (
    *("preset", "pretrained", "pool", "dim", "freeze_batch_statistics", "epochs", "batch_size", "limit_steps"),
    *("query_limit", "resize_ratio", "interpolation", "optimizer", "lr", "weight_decay"),
)
BANK_BATCH = 32


@register_method("distillation")
class Distillation(Triplet):
    """A student of small images that shares the embedding space of a teacher of large ones.

    The teacher is an input (`inputs.teacher`: any retrieval run), runs without gradients, and is no part of what is
    trained or saved. The asymmetric test searches the teacher's gallery with the student's queries; the symmetric one
    the student's own. `teacher_at_student_size` is the teacher on small images, the asymmetry without any training.

    `preset: paper` sums losses over images and accumulated batches, drops batches that do not fill a step, gives all
    parameter groups one rate, tells schedules the published numbers of steps, and keeps the last epoch. Its views are
    drawn from the published distributions, but by this project's streams.
    """

    tiny = {"image_size": 16, "dim": 16, "query_limit": 32, "views": 2}

    Config = DistillationConfig
    config: DistillationConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._teacher: nn.Module
        self._targets: Tensor | None = None
        self._render: Callable[[Batch], Batch]
        self._decodes = False

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, Any]]:
        if not config.distils:
            return {}
        teacher = {name: getattr(config, name) for name in _SHARED}
        network = config.teacher_network or config.network
        teacher |= {"mode": "sym", "network": network, "image_size": config.teacher_image_size}
        return {"teacher": {"method": "distillation", "config": teacher}}

    def build(self, context: Context) -> nn.ModuleDict:
        if not self.config.distils:
            return super().build(context)
        teacher = self._teacher_variant(context)
        self._teacher = teacher.build().to(context.device).eval().requires_grad_(False)
        size, channels = teacher.preprocessing.size, context.data.channels
        with torch.no_grad():
            width = self._teacher(torch.zeros(1, channels, size, size, device=context.device)).shape[1]
        copied = self.config.student_start == "teacher"
        modules = nn.ModuleDict({"network": self._copied_teacher(context)}) if copied else super().build(context)
        dim = (self.config.dim or width) if copied else cast(EmbeddingNetwork, modules["network"]).dim
        if dim != width:
            raise UserError("student and teacher need one space", field="dim", value=dim, allowed=width)
        return modules

    def _copied_teacher(self, context: Context) -> nn.Module:
        config, of_teacher = self.config, cast(Artifact, context.inputs["teacher"]).spec.network
        if config.network != of_teacher:
            fault = "a student that starts as a copy of its teacher has its network"
            raise UserError(fault, field="network", value=config.network, allowed=of_teacher)
        size = self.preprocessing(context).size
        if not self._teacher_takes(size, context):
            raise UserError("the teacher does not run on images of the student's size", field="image_size", value=size)
        return trainable_copy(self._teacher, freeze_batch_statistics=config.freeze_batch_statistics)

    def stages(self, context: Context) -> list[Stage]:
        return [Stage("train", self.config.epochs, select=self.config.select != "last")]

    def _teacher_variant(self, context: Context) -> Variant:
        artifact = cast(Artifact, context.inputs["teacher"])
        variant = artifact.variant(self.config.teacher_variant)
        size = self.config.teacher_image_size or variant.preprocessing.size
        preprocessing = replace(variant.preprocessing, size=size)
        space = f"{artifact.spec.run_id}/{variant.space}"
        return replace(variant, name="teacher", preprocessing=preprocessing, space=space, frozen=True)

    def preprocessing(self, context: Context) -> Preprocessing:
        config, usual = self.config, super().preprocessing(context)
        size = usual.size
        if config.distils:
            of_teacher = self._teacher_variant(context).preprocessing
            size = size if config.image_size else of_teacher.size // 2
            if config.student_start == "teacher":
                usual = of_teacher  # pixels as its weights expect them
        return replace(usual, size=size, resize_ratio=config.resize_ratio, interpolation=config.interpolation)

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        config = self.config
        if config.distils and not config.aligning:
            print(f"{config.loss} only compares embeddings within each space: expect asymmetric retrieval at chance")
        if config.whitening_init == "default":
            return
        network, train = cast(EmbeddingNetwork, modules["network"]).eval(), context.data.train
        if not isinstance(network.whitening, nn.Linear):
            raise UserError("there is no whitening layer to start", field="whitening_init", value=config.whitening_init)
        descriptors = context.outputs(Descriptors(network).eval(), self.preprocessing(context), train).cpu()
        if config.whitening_init == "pca":
            network.set_whitening(*pca_whitening(descriptors, network.dim))
        else:
            network.set_whitening(
                *supervised_whitening(descriptors, *matching_pairs(train.labels, per_image=4, seed=context.seed))
            )

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        network = cast(EmbeddingNetwork, modules["network"])
        groups = network.parameter_groups(config.lr, config.weight_decay, config.pool_lr_multiplier)
        optimizer = make_optimizer(config.optimizer, groups, config.momentum)
        return {"weights": Optimization(optimizer, self._schedule(context))}

    def _schedule(self, context: Context) -> LearningRateSchedule:
        config = self.config
        if config.preset != "paper" or config.schedule in ("constant", "cosine"):
            return make_schedule(config.schedule)
        return raml_schedule(
            cast(Any, config.schedule),
            images_per_epoch=min(config.query_limit, len(context.data.train)),
            batch_size=config.batch_size,
            accumulate=config.update_every,
            epochs=config.epochs,
            lr=config.lr,
        )

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config = self.config
        if not config.distils:
            batches = list(super().plan_epoch(modules, stage, epoch, context))
            joined = [batches[i : i + config.update_every] for i in range(0, len(batches), config.update_every)]
            return config.without_remainder([np.concatenate(step) for step in joined])
        # Features are gathered over ranks, and this hook alone runs on all of them in every epoch, resumed or not.
        self._targets = self._cached_targets(epoch, context)
        self._render = partial(self._rendered, stage=stage, epoch=epoch, context=context)
        self._decodes = context.data.train.images.tensor is None
        size = config.batch_size * config.update_every
        order = context.numpy_generator("order", stage.name, epoch).permutation(len(context.data.train))
        order = order[: config.query_limit]
        return config.without_remainder([order[start : start + size] for start in range(0, len(order), size)])

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        if not self.config.distils:
            return super().make_batch(indices, stage, epoch, context)
        # Views are rendered by `training_step`, one accumulated batch at a time.
        labels = context.train_labels[torch.from_numpy(indices)]
        return Batch(indices=indices, images=torch.empty(len(indices), 0), labels=labels)

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        config = self.config
        units = config.batch_size if config.distils else config.batch_size // config.samples_per_class
        size = max(units // step.world.size, 1)
        pieces = [piece for batch in step.micro_batches for piece in batch.pieces(size)]
        step.micro_batches = pieces
        if config.distils:
            step.micro_batches = RenderedInTurn(pieces, self._render, ahead=self._decodes)
        step.backward(lambda batch: self.loss(modules, batch, step), reduction=config.loss_reduction)
        step.update()

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        config = self.config
        if not config.distils:
            parts = super().loss(modules, batch, step)
            anchors = len(batch) * config.samples_per_class if config.loss_reduction == "sum" else 1
            return {"loss": parts["loss"] * anchors}
        student = modules["network"](batch.images.flatten(0, 1)).unflatten(0, batch.images.shape[:2])
        target = batch.extra["target"] if "target" in batch.extra else self._embed_by_teacher(batch.extra["teacher"])
        parts = distillation_loss(config.loss, student, target, labels=batch.labels, **config.all_loss_options())
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def validate(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, float]:
        if not self.config.distils:
            return super().validate(modules, stage, context)
        split = context.data.validation
        if not len(split):
            return {}
        gallery = split if split.gallery is None else split.gallery
        student, teacher = modules["network"], self._teacher_variant(context)
        query = context.outputs(student, self.preprocessing(context), split)
        own = query if gallery is split else context.outputs(student, self.preprocessing(context), gallery)
        by_teacher = cached_outputs(context, self._teacher, teacher.preprocessing, gallery)
        found = {
            "asymmetric": split_metrics(query, by_teacher, split),
            "symmetric": split_metrics(query, own, split),
        }
        choice = "symmetric" if self.config.select == "symmetric" else "asymmetric"
        named = {f"{test}_{name}": value for test, metrics in found.items() for name, value in metrics.items()}
        return {**found[choice], **named}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        if not self.config.distils:
            return super().variants(modules, context)
        network, teacher = modules["network"], self._teacher_variant(context)
        own = Variant("student", lambda: network.eval(), self.preprocessing(context), teacher.space, capacity=1.0)
        own.details["aligning_loss"] = float(self.config.aligning)
        small = replace(teacher.preprocessing, size=own.preprocessing.size)
        offered = [own, teacher]
        if self._teacher_takes(small.size, context):
            offered.append(replace(teacher, name="teacher_at_student_size", preprocessing=small))
        return offered

    def pairs(self, variants: list[Variant]) -> list[tuple[Variant, Variant]]:
        if not self.config.distils:
            return super().pairs(variants)
        student, teacher, *small = variants
        return [(student, teacher), (student, student), (teacher, teacher), *((each, teacher) for each in small)]

    def _teacher_takes(self, size: int, context: Context) -> bool:
        """Whether the teacher runs on images of another size; transformers and unpooled networks do not."""
        try:
            with torch.no_grad():
                self._teacher(torch.zeros(1, context.data.channels, size, size, device=context.device))
        except (RuntimeError, AssertionError, ValueError):
            return False
        return True

    def _embed_by_teacher(self, views: Tensor) -> Tensor:
        """The teacher's unit embeddings (b, views, d) of normalised views (b, views, channels, size, size)."""
        with torch.no_grad():
            return l2_normalise(self._teacher(views.flatten(0, 1))).unflatten(0, views.shape[:2])

    def _rendered(self, piece: Batch, *, stage: Stage, epoch: int, context: Context) -> Batch:
        """`piece` with the student's views (b, views, ...), and the teacher's or its cached embeddings of them."""
        config, images, target = self.config, context.data.train.images, {}
        if self._targets is not None:
            target["target"] = self._targets[torch.from_numpy(piece.indices).to(context.device)]
        roles = {"student": self.preprocessing(context)}
        if config.mode == "ts_reg":
            views = roles["student"](images, piece.indices, context.device).unsqueeze(1)
            return replace(piece, images=views, extra=target)
        if not target:
            roles["teacher"] = self._teacher_variant(context).preprocessing
        draws = self._draws(piece.indices, self._occasion(stage.name, epoch), context)
        rendered = coupled_views(images, piece.indices, draws, roles, context.device)
        return replace(piece, images=rendered.pop("student"), extra=target or rendered)

    def _cached_targets(self, epoch: int, context: Context) -> Tensor | None:
        """The teacher's embeddings of all training images (n, views, d) where views repeat, else None."""
        config, train, teacher = self.config, context.data.train, self._teacher_variant(context)
        if config.mode == "ts_reg":
            return l2_normalise(cached_outputs(context, self._teacher, teacher.preprocessing, train)).unsqueeze(1)
        if not config.view_bank:
            return None
        occasion = self._occasion("", epoch)

        def compute() -> Tensor:
            share = np.array_split(np.arange(len(train)), context.world.size)[context.world.rank]
            rows = []
            for indices in np.split(share, range(BANK_BATCH, len(share), BANK_BATCH)):
                draws = self._draws(indices, occasion, context)
                views = coupled_views(train.images, indices, draws, {"": teacher.preprocessing}, context.device)[""]
                with context.world.autocast():
                    rows.append(self._embed_by_teacher(views).float())
            return context.world.gather_rows(torch.cat(rows))

        network = (weights_digest(self._teacher), repr(self._teacher), repr(teacher.preprocessing))
        drawn = (repr(self.config.view_options()), config.views, context.seed, *occasion)
        return cached_rows(context, (*network, *drawn, len(train)), compute)

    def _occasion(self, stage: str, epoch: int) -> tuple[int | str, ...]:
        """What views are drawn for: every epoch has its own, unless there is a bank of views that come again."""
        bank = self.config.view_bank
        return ("bank", epoch % (bank // self.config.views)) if bank else (stage, epoch)

    def _draws(self, indices: np.ndarray, occasion: tuple[int | str, ...], context: Context) -> ViewDraws:
        views, size = self.config.views, len(context.data.train)
        return draw_views(self.config.view_options(), indices, views, size, seed=context.seed, counters=occasion)
