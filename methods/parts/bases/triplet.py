"""The base of methods that train one network by triplets: class-balanced batches, mined negatives."""

from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Choice,
    Context,
    LogUniform,
    Stage,
    Step,
    Uniform,
    stream_key,
)
from subnetbench.methods.parts.bases.embedder import EmbeddingConfig, EmbeddingMethod
from subnetbench.methods.parts.losses.triplet import Generator, class_balanced_queries, plan_triplet_epoch, triplet_loss


class TripletConfig(EmbeddingConfig):
    """Options of methods that train one network by triplets."""

    margin: Annotated[float, Field(gt=0, description="margin between squared distances"), Uniform(0.1, 1.0)] = 0.7
    samples_per_class: Annotated[int, Field(ge=2, description="images of a class in a group")] = 4
    mining: Annotated[
        Literal["pool", "batch"],
        Field(description="pool: distance-weighted draws, embedded each epoch; batch: the nearest in the batch"),
        Choice(("pool", "batch")),
    ] = "pool"
    negatives: Annotated[int, Field(ge=1, description="negatives of each anchor")] = 4
    query_limit: Annotated[int, Field(ge=1, description="most anchors an epoch")] = 8000
    pool_limit: Annotated[int, Field(ge=1, description="most images that negatives are drawn from")] = 20000
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-5, 1e-2)] = 1e-3


ConfigT = TypeVar("ConfigT", bound=TripletConfig)


class TripletMethod(EmbeddingMethod[ConfigT]):
    """Anchors pull the other images of their class and push negatives that the present network finds.

    A batch is of class groups: `samples_per_class` anchors of a class each, with the negatives mined for them.
    """

    def start_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        # What is mined is checkpointed: within an epoch the network is not what it was when the epoch began.
        if self.config.mining == "pool":
            self.state["mined"] = {"tuples": torch.from_numpy(self._mine(modules["network"], stage, epoch, context))}

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        config, train = self.config, context.data.train
        # Whole class groups stay together: a row is a group, with the negatives mined for its anchors.
        groups = max(config.batch_size // config.samples_per_class, 1)
        if config.mining == "batch":
            generator = context.numpy_generator("mining", stage.name, epoch)
            queries = class_balanced_queries(
                train.labels, generator, samples_per_class=config.samples_per_class, limit=config.query_limit
            )
            tuples = queries.reshape(-1, config.samples_per_class)
            # The last batch could be too small to hold negatives.
            groups = min(groups, len(tuples))
            return [tuples[start : start + groups] for start in range(0, len(tuples) - groups + 1, groups)]

        tuples = self.state["mined"]["tuples"].cpu().numpy()
        return [tuples[start : start + groups] for start in range(0, len(tuples), groups)]

    def _mine(self, network: nn.Module, stage: Stage, epoch: int, context: Context) -> np.ndarray:
        """The groups of an epoch with the negatives of their anchors: (groups, samples + samples * negatives)."""
        config, train = self.config, context.data.train
        paper = config.preset == "paper"
        generator: Generator = context.numpy_generator("mining", stage.name, epoch)
        if paper:
            generator = np.random.RandomState(stream_key(context.seed, "mining", stage.name, epoch) % 2**32)

        def embed(indices: np.ndarray) -> Tensor:
            network.eval()
            return context.evaluator.outputs(network, self.preprocessing(context), train.subset(indices))

        plan = plan_triplet_epoch(
            train.labels,
            embed,
            generator,
            samples_per_class=config.samples_per_class,
            query_limit=config.query_limit,
            pool_limit=config.pool_limit,
            negatives=config.negatives,
            paper=paper,
        )
        anchors = plan.queries.reshape(-1, config.samples_per_class)
        negatives = plan.negatives.reshape(len(anchors), -1)
        return np.concatenate([anchors, negatives], axis=1)

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        groups, width = indices.shape
        images = self.augment(indices.reshape(-1), stage, epoch, context)
        labels = context.train_labels[torch.from_numpy(indices[:, 0])]
        return Batch(indices=indices, images=torch.unflatten(images, 0, (groups, width)), labels=labels)

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        size, count = self.config.samples_per_class, self.config.negatives
        embeddings = modules["network"](batch.images.flatten(0, 1)).unflatten(0, batch.images.shape[:2])
        anchors = embeddings[:, :size]
        # The positives of an anchor are the other members of its group.
        others = torch.tensor([[j for j in range(size) if j != i] for i in range(size)], device=anchors.device)
        positives = anchors[:, others].flatten(0, 1)
        if self.config.mining == "batch":
            negatives = nearest_negatives(anchors.flatten(0, 1), batch.labels.repeat_interleave(size), count)
        else:
            negatives = embeddings[:, size:].reshape(-1, count, embeddings.shape[-1])
        return {"loss": triplet_loss(anchors.flatten(0, 1), positives, negatives, margin=self.config.margin)}


def nearest_negatives(embeddings: Tensor, labels: Tensor, count: int) -> Tensor:
    """For each of n embeddings (n, d) the `count` most similar ones of other classes, or all: (n, count, d)."""
    similarity = embeddings.detach() @ embeddings.detach().T
    same = labels[:, None] == labels[None, :]
    fewest = int((~same).sum(1).min())
    chosen = similarity.masked_fill(same, -torch.inf).topk(min(count, fewest), dim=1).indices
    return embeddings[chosen]
