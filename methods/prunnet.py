"""PrunNet: one network whose subnetworks of every capacity search one gallery (Sun et al., CVPR 2025)."""

import copy
import re
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from subnetbench.harness.method import (
    Batch,
    Context,
    Optimization,
    Stage,
    Step,
    UserError,
    UserValues,
    Variant,
    Weights,
    fill,
    register_method,
)
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.capacity.config import CapacityConfig, Share
from subnetbench.methods.parts.capacity.gradients import Gradients, Subnetworks
from subnetbench.methods.parts.capacity.method import CapacityMethod, PlainNetwork, embedding_only, samples
from subnetbench.methods.parts.capacity.scores import (
    ScoreMaps,
    masked_weights,
    prunable_parameters,
)
from subnetbench.methods.parts.losses.margin import SampleWeighting, sample_weights
from subnetbench.methods.parts.networks.batch_norm import running_momentum, running_statistics_kept
from subnetbench.methods.parts.networks.foreign import compatible_fields, compatible_names
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding

DENSE_LOGITS = "dense_logits"
SCORE = re.compile(r"\.([wb])_m$")
"""How scores of weights and biases are called in the published files."""


@register_method("prunnet")
class PrunNet(CapacityMethod["PrunNet.Config"]):
    """A score a weight; capacity c keeps, in each layer, the share c of weights with the largest |score|.

    Every subnetwork is trained against the dense network's classifier, which it cannot move; the gradients of weights
    and scores are combined so that capacities in conflict do not undo each other. Any capacity can be cut afterwards,
    also one that was never trained. `training: dense` is the control: the dense loss alone, then pruned by |weight|.

    `preset: paper` is the published recipe for GLDv2 (ResNet-18 without max-pooling, SGD, 30 epochs). It differs from
    the defaults in: two updates of the dense running statistics a step, an exponential recalibration, the rest of an
    epoch kept on a single device. Not reproduced in any preset, as they are faults without intent: the redundant dense
    pass, deep copies, an order of projections that differs between ranks, in-training evaluation of subnetworks with
    the dense network's statistics.
    """

    paper = "Sun et al., Learning Compatible Multi-Prize Subnetworks for Asymmetric Retrieval, arXiv 2504.11879"

    class Config(CapacityConfig):
        paper_defaults = {**CapacityConfig.paper_defaults, "network": "prunnet_resnet18"}
        searched_when = {
            "gradients": {"training": ("subnetworks",)},
            "exponent": {"training": ("subnetworks",), "gradients": ("conflict_aware",)},
        }

        training: Annotated[
            Literal["subnetworks", "dense"],
            Field(
                description="train subnetworks with the dense network, or the dense network alone, pruned afterwards"
            ),
        ] = "subnetworks"
        evaluate_capacities: Annotated[
            tuple[Share, ...], Field(description="further capacities to evaluate, which are not trained")
        ] = ()
        prune_depthwise: Annotated[
            bool,
            Field(description="false: subnetworks keep depthwise convolutions whole, few weights that matter much"),
        ] = True
        score_start: Annotated[
            Literal["uniform", "magnitude"] | None,
            Field(description="first scores; null: by magnitude where weights are pretrained, else uniform"),
        ] = None
        train_scores: Annotated[bool, Field(description="false: scores stay as they are at the start")] = True
        score_maps: Annotated[
            Literal["shared", "per_capacity"],
            Field(description="one map of scores, with nested masks, or one for each trained capacity"),
        ] = "shared"
        weight_loss_by_capacity: Annotated[bool, Field(description="multiply a subnetwork's loss by its capacity")] = (
            False
        )
        sample_weighting: Annotated[
            SampleWeighting,
            Field(description="weigh a subnetwork's samples by their divergence from the dense network"),
        ] = "none"
        curriculum_epochs: Annotated[
            int, Field(ge=0, description="sample_weighting curriculum: epochs in which divergent samples count less")
        ] = 30

        @model_validator(mode="after")
        def _has_subnetworks(self) -> Self:
            if self.training == "subnetworks" and min(self.capacities) == 1:
                raise ValueError("capacities: there is no subnetwork to train, all of them are 1")
            return self

    def build(self, context: Context) -> nn.ModuleDict:
        config = self.config
        network = self.classified_embedding(context)
        weights = self.prunable_weights(network)
        maps = nn.ModuleList()
        for _ in range(1 if config.score_maps == "shared" else len(self._trained())):
            scores = ScoreMaps(weights)
            scores.initialise_uniform()
            if (config.score_start or ("magnitude" if config.pretrained else "uniform")) == "magnitude":
                scores.initialise_from_weights(weights)
            maps.append(scores)
        return nn.ModuleDict({"network": network, "scores": maps})

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        return compatible_fields(weights, "prunnet")

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        network, (scores, *others) = modules["network"], cast(nn.ModuleList, modules["scores"])
        if others:
            raise UserError("files with a map of scores a capacity are not read", field="score_maps", allowed="shared")
        named = compatible_names(weights.tensors, network.state_dict())
        own = {SCORE.sub(_of_scores, name): each for name, each in named.items() if SCORE.search(name)}
        fill(network, weights.renamed({name: each for name, each in named.items() if not SCORE.search(name)}))
        if own or self.config.imported:
            fill(scores, weights.renamed(own))

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        config, network = self.config, modules["network"]
        scores = score_maps(modules)
        self.subnetworks = Subnetworks(
            self.prunable_weights(network), scores[0] if config.score_maps == "shared" else scores, self._trained()
        )

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        return self.optimization(modules, scores=config.train_scores and config.training == "subnetworks")

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        config, network = self.config, cast(ClassifiedEmbedding, modules["network"])
        if config.training == "dense":
            step.backward(lambda batch: self.dense_loss(network, batch, step))
            step.update()
            return
        subnetworks = self.subnetworks
        weights = subnetworks.weights
        others = {name: p for name, p in network.named_parameters() if name not in weights and p.requires_grad}
        subnetworks.select()
        # The released code runs the dense network twice a step, the first time for nothing.
        twice = running_momentum(network, 1 - 0.9**2) if config.preset == "paper" else nullcontext()
        with twice:
            raw = step.gradients(
                lambda batch: self.dense_loss(network, batch, step), [*weights.values(), *others.values()]
            )
        gradients = [subnetworks.keep_dense(dict(zip(weights, raw, strict=False)))]
        of_others = raw[len(weights) :]
        del raw  # a copy of all weights' gradients that would stay through the step
        for i in range(len(subnetworks)):
            finished, parts = self._subnetwork_gradients(network, i, others, step)
            gradients.append(finished)
            if config.heads == "all":
                of_others = [_sum(a, b) for a, b in zip(of_others, parts, strict=True)]
        of_weights, of_scores = subnetworks.combine(
            gradients,
            None if config.gradients == "sum" else self.projection_orders(step),
            rule=config.gradients,
            exponent=config.exponent,
            per_filter=config.per_filter,
            use_dot=config.agreement == "dot",
            train_scores=config.train_scores,
        )
        for name, parameter in weights.items():
            parameter.grad = of_weights[name]
        for scores, found in zip(score_maps(modules), of_scores, strict=True):
            for name, gradient in found.items():
                scores[name].grad = gradient
        for parameter, of_other in zip(others.values(), of_others, strict=True):
            parameter.grad = of_other
        step.update()

    def projection_orders(self, step: Step) -> Tensor:
        """The random orders in which conflicts are resolved in a step, the same on all ranks."""
        return self.subnetworks.draw_orders(
            step.generator("noise"),
            rule=self.config.gradients,
            per_filter=self.config.per_filter,
            train_scores=self.config.train_scores,
        )

    def _subnetwork_gradients(
        self, network: ClassifiedEmbedding, index: int, others: dict[str, nn.Parameter], step: Step
    ) -> tuple[Gradients, list[Tensor | None]]:
        """The finished gradients of one subnetwork, and those of everything but the prunable weights."""
        leaves = self.subnetworks.leaves(index)
        shared = {name: parameter.detach().requires_grad_() for name, parameter in others.items()}
        raw = step.gradients(
            lambda batch: self.subnetwork_loss(network, index, {**leaves, **shared}, batch, step),
            [*leaves.values(), *shared.values()],
            keeps_statistics=True,
        )
        of_others = raw[len(leaves) :]
        finished, norm = self.subnetworks.finish(
            index,
            dict(zip(leaves, raw, strict=False)),
            of_others,
            clip_norm=self.config.capacity_clip_norm,
            train_scores=self.config.train_scores,
        )
        step.log(**{f"gradient_norm_{self._trained()[index].name}": norm})
        return finished, of_others

    def dense_loss(self, network: ClassifiedEmbedding, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The loss of the dense network, whose logits are kept where samples are weighed by them."""
        images, labels = samples(batch)
        embeddings, logits = network(images)
        if self.config.sample_weighting != "none":
            step.keep(DENSE_LOGITS, logits.detach().float())
        correct = (logits.detach().argmax(1) == labels).float().mean()
        loss = self.class_losses(embeddings, logits, network.classifier.weight, labels).mean()
        return {"loss": loss, "accuracy": correct}

    def subnetwork_loss(
        self, network: ClassifiedEmbedding, index: int, parameters: dict[str, Tensor], batch: Batch, step: Step
    ) -> dict[str, Tensor]:
        """The loss of subnetwork `index`, which runs with `parameters` instead of the network's own.

        Divergences are compared within one forward pass: a micro-batch of one rank.
        """
        config, capacity = self.config, self._trained()[index]
        images, labels = samples(batch)
        with running_statistics_kept(network):
            embeddings, logits = functional_call(network, parameters, (images,))
        losses = self.class_losses(embeddings, logits, parameters["classifier.weight"], labels)
        if config.sample_weighting != "none":
            late = step.progress.epoch >= config.curriculum_epochs
            dense = step.kept(DENSE_LOGITS)
            losses = losses * sample_weights(dense, logits.float(), losses, config.sample_weighting, late=late)
        loss = losses.mean()
        step.log(**{f"loss_{capacity.name}": loss})
        return {"loss": loss * capacity.share if config.weight_loss_by_capacity else loss}

    def finish(self, modules: nn.ModuleDict, context: Context) -> None:
        if self.config.training == "dense":
            weights = self.prunable_weights(modules["network"])
            with torch.no_grad():
                for scores in score_maps(modules):
                    for name, score in scores.items():
                        score.copy_(weights[name])
        super().finish(modules, context)

    def plain_networks(self, modules: nn.ModuleDict) -> list[PlainNetwork]:
        shares = sorted({*self.config.capacities, *self.config.evaluate_capacities, 1.0}, reverse=True)
        return [
            PlainNetwork(capacity.name, capacity.share, partial(self.subnetwork, modules, capacity))
            for capacity in map(Capacity, shares)
        ]

    def subnetwork(self, modules: nn.ModuleDict, capacity: Capacity) -> nn.Module:
        """A plain network of any capacity, with the dense network's batch-norm statistics."""
        network = cast(ClassifiedEmbedding, modules["network"])
        plain = embedding_only(network)
        if capacity.share < 1:
            maps = score_maps(modules)
            distance = [abs(trained.share - capacity.share) for trained in self._trained()]
            nearest = min(range(len(maps)), key=distance.__getitem__) if len(maps) > 1 else 0
            masked = masked_weights(self.prunable_weights(network), maps[nearest], capacity)
            with torch.no_grad():
                for name, weight in masked.items():
                    plain.get_parameter(name).copy_(weight)
        return plain

    def variant_on_demand(self, name: str, modules: nn.ModuleDict, context: Context) -> Variant | None:
        """`capacity_C` for any C in (0, 1], also one that was never trained; its statistics are collected now."""
        capacity = Capacity.from_name(name)
        if capacity is None:
            return None
        network = self.subnetwork(modules, capacity)
        statistics = self.recalibrated(network, context)
        return self.variant(PlainNetwork(name, capacity.share, partial(copy.deepcopy, network)), statistics, context)

    def prunable_weights(self, network: nn.Module) -> dict[str, nn.Parameter]:
        """Weights and biases of the backbone's layers that subnetworks prune, by name in the whole network."""
        found = prunable_parameters(network.get_submodule("backbone"), depthwise=self.config.prune_depthwise)
        return {f"backbone.{name}": parameter for name, parameter in found.items()}

    def _trained(self) -> list[Capacity]:
        """The capacities of the subnetworks, in the order in which their gradients are numbered."""
        return [Capacity(share) for share in self.config.capacities if share < 1]


def score_maps(modules: nn.ModuleDict) -> list[dict[str, nn.Parameter]]:
    """The scores by weight name, one dictionary a map."""
    return [cast(ScoreMaps, scores).as_dict() for scores in cast(nn.ModuleList, modules["scores"])]


def _of_scores(found: re.Match[str]) -> str:
    return ".weight" if found[1] == "w" else ".bias"


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
