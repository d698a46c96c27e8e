"""Distillation for retrieval: a student sees small images and embeds them where a frozen teacher puts large ones.

Suma and Tolias 2023 (RAML), with the losses of its neighbours as choices. A gallery embedded once by the teacher is
then searched with queries that cost a fraction of it.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    Preprocessing,
    Stage,
    Step,
    UserError,
    UserValues,
    Variant,
    Weights,
    batch_slices,
    register_method,
    split_metrics,
    weights_digest,
)
from subnetbench.methods.parts.bases.distiller import DistillationConfig, RenderedInTurn
from subnetbench.methods.parts.bases.recipe import RamlRecipe, SymmetricRecipe
from subnetbench.methods.parts.losses.distillation import distillation_loss
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork, trainable_copy
from subnetbench.methods.parts.networks.pooling import l2_normalise
from subnetbench.methods.parts.views.drawing import ViewDraws, coupled_views, draw_views

# What a teacher that nobody describes takes over from the student.
_SHARED = (
    *("preset", "pretrained", "pool", "dim", "freeze_batch_statistics", "epochs", "batch_size", "limit_steps"),
    *("query_limit", "resize_ratio", "interpolation", "optimizer", "lr", "weight_decay"),
)
BANK_BATCH = 32


@register_method("distillation")
class Distillation(RamlRecipe):
    """A student of small images that shares the embedding space of a teacher of large ones.

    The teacher is an input (`inputs.teacher`: any retrieval run), runs without gradients, and is no part of what is
    trained or saved. The asymmetric test searches the teacher's gallery with the student's queries; the symmetric one
    the student's own. `teacher_at_student_size` is the teacher on small images, the asymmetry without any training.

    `preset: paper` sums losses over images and accumulated batches, drops batches that do not fill a step, gives all
    parameter groups one rate, gives schedules the published numbers of steps, and keeps the last epoch. Its views are
    drawn from the published distributions, but by this project's streams.
    """

    tiny = {"image_size": 16, "dim": 16, "query_limit": 32, "views": 2}

    Config = DistillationConfig

    def __new__(cls, config: DistillationConfig) -> Any:
        # The config field stays, and with it the ids of runs; what it chooses is a class and not a flag in every hook.
        return SymmetricRecipe(config) if config.mode == "sym" else super().__new__(cls)

    def __init__(self, config: DistillationConfig) -> None:
        super().__init__(config)
        self._teacher: nn.Module
        self._targets: Tensor | None = None

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, object]]:
        if config.mode == "sym":
            return {}
        teacher = {name: getattr(config, name) for name in _SHARED}
        network = config.teacher_network or config.network
        teacher |= {"mode": "sym", "network": network, "image_size": config.teacher_image_size}
        return {"teacher": {"method": "distillation", "config": teacher}}

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        # A network by itself, student or teacher, is one that `sym` could have trained.
        return {"mode": "sym", **super().describe_weights(weights)}

    def build(self, context: Context) -> nn.ModuleDict:
        teacher = self._teacher_variant(context)
        self._teacher = teacher.build().to(context.device).eval().requires_grad_(False)
        size, channels = teacher.preprocessing.size, context.metadata.channels
        with torch.no_grad():
            width = self._teacher(torch.zeros(1, channels, size, size, device=context.device)).shape[1]
        copied = self.config.student_start == "teacher"
        modules = nn.ModuleDict({"network": self._copied_teacher(context)}) if copied else super().build(context)
        dim = (self.config.dim or width) if copied else cast(EmbeddingNetwork, modules["network"]).dim
        if dim != width:
            raise UserError("student and teacher need one space", field="dim", value=dim, allowed=width)
        return modules

    def _copied_teacher(self, context: Context) -> nn.Module:
        config, of_teacher = self.config, context.input("teacher").network
        if config.network != of_teacher:
            fault = "a student that starts as a copy of its teacher has its network"
            raise UserError(fault, field="network", value=config.network, allowed=of_teacher)
        size = self.preprocessing(context).size
        if not self._teacher_takes(size, context):
            raise UserError("the teacher does not run on images of the student's size", field="image_size", value=size)
        return trainable_copy(self._teacher, freeze_batch_statistics=config.freeze_batch_statistics)

    def _teacher_variant(self, context: Context) -> Variant:
        finished = context.input("teacher")
        variant = finished.variant(self.config.teacher_variant)
        size = self.config.teacher_image_size or variant.preprocessing.size
        preprocessing = replace(variant.preprocessing, size=size)
        space = f"{finished.spec.run_id}/{variant.space}"
        return replace(variant, name="teacher", preprocessing=preprocessing, space=space, frozen=True)

    def preprocessing(self, context: Context) -> Preprocessing:
        usual, of_teacher = super().preprocessing(context), self._teacher_variant(context).preprocessing
        size = usual.size if self.config.image_size else of_teacher.size // 2
        if self.config.student_start == "teacher":
            # Its weights expect the teacher's pixels.
            usual = replace(of_teacher, resize_ratio=usual.resize_ratio, interpolation=usual.interpolation)
        return replace(usual, size=size)

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        if not self.config.aligning:
            fault = "%s only compares embeddings within each space: expect asymmetric retrieval at chance"
            logging.getLogger(__name__).warning(fault, self.config.loss)
        super().start_stage(modules, stage, context)

    def enter_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        self._targets = self._cached_targets(epoch, context)

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config = self.config
        size = config.batch_size * config.update_every
        order = context.numpy_generator("order", stage.name, epoch).permutation(len(context.data.train))
        order = order[: config.query_limit]
        return config.without_remainder([order[part] for part in batch_slices(len(order), size)])

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        # Views are rendered by `micro_batches`, one accumulated batch at a time.
        labels = context.train_labels[torch.from_numpy(indices)]
        return Batch(indices=indices, images=torch.empty(len(indices), 0), labels=labels)

    def micro_batches(self, batch: Batch, stage: Stage, epoch: int, context: Context) -> Sequence[Batch]:
        return RenderedInTurn(
            self.accumulated(batch, self.config.batch_size, context),
            partial(self._rendered, stage=stage, epoch=epoch, context=context),
            ahead=context.data.train.images.tensor is None,
        )

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        config = self.config
        student = modules["network"](batch.images.flatten(0, 1)).unflatten(0, batch.images.shape[:2])
        target = batch.extra["target"] if "target" in batch.extra else self._embed_by_teacher(batch.extra["teacher"])
        parts = distillation_loss(config.loss, student, target, labels=batch.labels, **config.all_loss_options())
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def validate(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, float]:
        split = context.data.validation
        if not len(split):
            return {}
        gallery = split if split.gallery is None else split.gallery
        student, teacher = modules["network"], self._teacher_variant(context)
        query = context.evaluator.outputs(student, self.preprocessing(context), split)
        own = query if gallery is split else context.evaluator.outputs(student, self.preprocessing(context), gallery)
        by_teacher = context.evaluator.cached_outputs(self._teacher, teacher.preprocessing, gallery)
        found = {
            "asymmetric": split_metrics(query, by_teacher, split),
            "symmetric": split_metrics(query, own, split),
        }
        choice = "symmetric" if self.config.select == "symmetric" else "asymmetric"
        named = {f"{test}_{name}": value for test, metrics in found.items() for name, value in metrics.items()}
        return {**found[choice], **named}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        network, teacher = modules["network"], self._teacher_variant(context)
        own = Variant("student", lambda: network.eval(), self.preprocessing(context), teacher.space, capacity=1.0)
        own.details["aligning_loss"] = float(self.config.aligning)
        small = replace(teacher.preprocessing, size=own.preprocessing.size)
        offered = [own, teacher]
        if self._teacher_takes(small.size, context):
            offered.append(replace(teacher, name="teacher_at_student_size", preprocessing=small))
        return offered

    def pairs(self, variants: list[Variant]) -> list[tuple[Variant, Variant]]:
        student, teacher, *small = variants
        return [(student, teacher), (student, student), (teacher, teacher), *((each, teacher) for each in small)]

    def _teacher_takes(self, size: int, context: Context) -> bool:
        """Whether the teacher runs on images of another size; transformers and unpooled networks do not."""
        try:
            with torch.no_grad():
                self._teacher(torch.zeros(1, context.metadata.channels, size, size, device=context.device))
        except (RuntimeError, AssertionError, ValueError):
            return False
        return True

    def _embed_by_teacher(self, views: Tensor) -> Tensor:
        """The teacher's unit embeddings (b, views, d) of normalised views (b, views, channels, size, size)."""
        with torch.no_grad():
            return torch.unflatten(l2_normalise(self._teacher(views.flatten(0, 1))), 0, views.shape[:2])

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
            return l2_normalise(
                context.evaluator.cached_outputs(self._teacher, teacher.preprocessing, train)
            ).unsqueeze(1)
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
        return context.evaluator.cached_rows((*network, *drawn, len(train)), compute)

    def _occasion(self, stage: str, epoch: int) -> tuple[int | str, ...]:
        """What views are drawn for: every epoch has its own, unless there is a bank of views that come again."""
        bank = self.config.view_bank
        return ("bank", epoch % (bank // self.config.views)) if bank else (stage, epoch)

    def _draws(self, indices: np.ndarray, occasion: tuple[int | str, ...], context: Context) -> ViewDraws:
        views, size = self.config.views, len(context.data.train)
        return draw_views(self.config.view_options(), indices, views, size, seed=context.seed, counters=occasion)
