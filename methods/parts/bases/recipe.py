"""The training recipe of resolution-asymmetric distillation (Suma and Tolias 2023), and its symmetric baseline."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from subnetbench.harness.method import Batch, Context, Optimization, Preprocessing, Stage, Step, UserError
from subnetbench.methods.parts.bases.distiller import DistillationConfig
from subnetbench.methods.parts.bases.embedder import EmbeddingMethod, make_optimizer
from subnetbench.methods.parts.bases.triplet import TripletMethod
from subnetbench.methods.parts.networks.embedding import Descriptors, EmbeddingNetwork
from subnetbench.methods.parts.networks.whitening import matching_pairs, pca_whitening, supervised_whitening
from subnetbench.methods.parts.optim.schedules import LearningRateSchedule, make_schedule, raml_schedule


class RamlRecipe(EmbeddingMethod[DistillationConfig]):
    """What students, teachers and baselines have in common: start of the whitening, optimizer, schedule, selection."""

    def stages(self, context: Context) -> list[Stage]:
        return [Stage("train", self.config.epochs, select=self.config.select != "last")]

    def preprocessing(self, context: Context) -> Preprocessing:
        config = self.config
        usual = super().preprocessing(context)
        return replace(usual, resize_ratio=config.resize_ratio, interpolation=config.interpolation)

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        config = self.config
        if config.whitening_init == "default":
            return
        network, train = cast(EmbeddingNetwork, modules["network"]).eval(), context.data.train
        if not isinstance(network.whitening, nn.Linear):
            raise UserError("there is no whitening layer to start", field="whitening_init", value=config.whitening_init)
        descriptors = context.evaluator.outputs(Descriptors(network).eval(), self.preprocessing(context), train).cpu()
        if config.whitening_init == "pca":
            network.set_whitening(*pca_whitening(descriptors, network.dim))
        else:
            pairs = matching_pairs(train.labels, per_image=4, seed=context.seed)
            network.set_whitening(*supervised_whitening(descriptors, *pairs))

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

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        step.backward(lambda batch: self.loss(modules, batch, step), reduction=self.config.loss_reduction)
        step.update()

    def accumulated(self, batch: Batch, size: int, context: Context) -> list[Batch]:
        """The batches of `size` rows over all ranks whose gradients make one step, cut for this rank's memory."""
        share = max(size // context.world.size, 1)
        return [piece for part in batch.pieces(self.config.micro_batch_size) for piece in part.pieces(share)]


class SymmetricRecipe(RamlRecipe, TripletMethod[DistillationConfig]):
    """Mode `sym`: triplets without a teacher, trained as students are; how teachers and baselines are made."""

    name = "distillation"

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config, batches = self.config, list(super().plan_epoch(modules, stage, epoch, context))
        joined = [batches[i : i + config.update_every] for i in range(0, len(batches), config.update_every)]
        return config.without_remainder([np.concatenate(step) for step in joined])

    def micro_batches(self, batch: Batch, stage: Stage, epoch: int, context: Context) -> Sequence[Batch]:
        return self.accumulated(batch, self.config.batch_size // self.config.samples_per_class, context)

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        config = self.config
        parts = super().loss(modules, batch, step)
        anchors = len(batch) * config.samples_per_class if config.loss_reduction == "sum" else 1
        return {"loss": parts["loss"] * anchors}
