"""Triplet loss with class-balanced batches and mined negatives: the symmetric metric-learning baseline."""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.config import LogUniform, Uniform
from subnetbench.harness.context import Context
from subnetbench.harness.method import Stage
from subnetbench.harness.registry import register_method
from subnetbench.harness.training.step import Batch, Step
from subnetbench.methods.parts.embedding import EmbeddingConfig, EmbeddingMethod
from subnetbench.methods.parts.triplet import plan_triplet_epoch, triplet_loss


@register_method("triplet")
class Triplet(EmbeddingMethod["Triplet.Config"]):
    """Anchors pull the other images of their class and push negatives that the present network finds.

    The protocol by which teachers and baselines of resolution-asymmetric distillation are trained. Negatives are
    drawn by distance-weighted sampling (Wu et al. 2017) over a pool embedded at the start of each epoch.
    """

    paper = "Suma and Tolias, Large-to-small Image Resolution Asymmetry in Deep Metric Learning, arXiv 2210.05463"

    tiny = {"image_size": 16, "dim": 16, "query_limit": 32}

    class Config(EmbeddingConfig):
        margin: Annotated[float, Field(gt=0, description="margin between squared distances"), Uniform(0.1, 1.0)] = 0.7
        samples_per_class: Annotated[int, Field(ge=2, description="images of a class in a group")] = 4
        negatives: Annotated[int, Field(ge=1, description="mined negatives of each anchor")] = 4
        query_limit: Annotated[int, Field(ge=1, description="most anchors an epoch")] = 8000
        pool_limit: Annotated[int, Field(ge=1, description="most images that negatives are drawn from")] = 20000
        lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-5, 1e-2)] = 1e-3

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config, train = self.config, context.data.train
        network = modules["network"]

        def embed(indices: np.ndarray) -> Tensor:
            network.eval()
            return context.outputs(network, self.preprocessing(context), train.subset(indices))

        plan = plan_triplet_epoch(
            train.labels,
            embed,
            context.numpy_generator("mining", stage.name, epoch),
            samples_per_class=config.samples_per_class,
            query_limit=config.query_limit,
            pool_limit=config.pool_limit,
            negatives=config.negatives,
        )
        # Whole class groups stay together: a tuple is a group with the negatives of its anchors.
        groups = max(config.batch_size // config.samples_per_class, 1)
        anchors = plan.queries.reshape(-1, config.samples_per_class)
        negatives = plan.negatives.reshape(len(anchors), -1)
        tuples = np.concatenate([anchors, negatives], axis=1)
        return [tuples[start : start + groups] for start in range(0, len(tuples), groups)]

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        groups, width = indices.shape
        images = self.augment(indices.reshape(-1), stage, epoch, context)
        labels = context.train_labels[torch.from_numpy(indices[:, 0])]
        return Batch(indices=indices, images=images.unflatten(0, (groups, width)), labels=labels)

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        size, count = self.config.samples_per_class, self.config.negatives
        embeddings = modules["network"](batch.images.flatten(0, 1)).unflatten(0, batch.images.shape[:2])
        anchors = embeddings[:, :size]
        # The positives of an anchor are the other members of its group.
        others = torch.tensor([[j for j in range(size) if j != i] for i in range(size)], device=anchors.device)
        positives = anchors[:, others].flatten(0, 1)
        negatives = embeddings[:, size:].reshape(-1, count, embeddings.shape[-1])
        return {"loss": triplet_loss(anchors.flatten(0, 1), positives, negatives, margin=self.config.margin)}
