"""Universally slimmable networks: the sandwich rule and in-place distillation (Yu and Huang, ICCV 2019)."""

import copy
from functools import partial
from math import sqrt
from typing import Annotated, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    Optimization,
    Stage,
    Step,
    UserError,
    Variant,
    register_method,
    torch_generator,
)
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.capacity.config import SharedSpaceConfig
from subnetbench.methods.parts.capacity.method import CapacityMethod, PlainNetwork, embedding_only, samples
from subnetbench.methods.parts.capacity.scores import backbone_weights
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork, mobilenet_v2_channels, truncated
from subnetbench.methods.parts.losses.margin import margin_logits
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding

FULL_OUTPUTS = ("projector.linear", "projector.norm")
FULL_LOGITS = "full_logits"


@register_method("us_net")
class USNet(CapacityMethod["USNet.Config"]):
    """One network that runs at any width: width w keeps the first int(w C) channels of every layer, capacity is about w^2.

    A step trains the full width by its labels, and the narrowest and `random_widths` others by the class probabilities
    that the full width has just given (`training: labels`: by the labels too); the gradients are added up. Batch norms are
    one for all widths, whose statistics are collected for each width that is evaluated, also for those that were never
    trained. Widths are drawn from `grid` equally spaced ones.

    As SwitchNet it embeds all widths into one space, by a projector and a classifier that are always whole; the paper's
    networks classify. `preset: paper` is SwitchNet's recipe, so that the two are compared under one.
    """

    tiny = {**CapacityMethod.tiny, "network": "cnn8-8", "grid": 4}
    paper = "Yu, Huang, Universally Slimmable Networks and Improved Training Techniques, arXiv 1903.05134"

    class Config(SharedSpaceConfig):
        paper_defaults = {**SharedSpaceConfig.paper_defaults, "network": "switchnet_resnet18"}

        training: Annotated[
            Literal["distilled", "labels"],
            Field(description="what narrower widths learn: the full width's class probabilities, or labels"),
        ] = "distilled"
        random_widths: Annotated[
            int, Field(ge=0, description="widths drawn in each step, beside the full and the narrowest")
        ] = 2
        grid: Annotated[
            int, Field(ge=2, description="equally spaced widths that are drawn from, both ends included")
        ] = 16

        @model_validator(mode="after")
        def _possible(self) -> Self:
            if self.dim is None:
                raise ValueError("dim: widths need a projector to share an embedding size")
            if self.recalibration == "none" and not self.freeze_batch_statistics:
                raise ValueError("recalibration: narrower widths have no statistics until they are collected")
            if min(self.capacities) == 1:
                raise ValueError("capacities: the narrowest width must be narrower than the full one")
            return self

        def named_widths(self) -> dict[str, float]:
            """The widths that are evaluated, by name, the full one first."""
            shares = sorted({1.0, *self.capacities}, reverse=True)
            return {Capacity(share).name: _width(share) for share in shares}

        def trained_widths(self) -> list[float]:
            """All widths that may be trained, the full one first."""
            narrowest = min(self.named_widths().values())
            step = (1 - narrowest) / (self.grid - 1)
            return sorted({round(1 - i * step, 4) for i in range(self.grid - 1)} | {narrowest}, reverse=True)

        def widths(self) -> list[float]:
            """All widths that are trained or evaluated, the full one first."""
            return sorted({*self.trained_widths(), *self.named_widths().values()}, reverse=True)

    def build(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self._slimmable(self.config.widths(), context)})

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        return self.optimization(modules)

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        network = cast(SlimmableNetwork, modules["network"])
        parameters = step.parameters()
        for parameter in parameters:
            parameter.grad = None
        for index in self._drawn(step.generator("noise", device="cpu")):
            loss = partial(self.width_loss, network, index, step)
            # Narrower widths leave the running statistics alone.
            found = step.gradients(loss, parameters, keeps_statistics=index > 0)
            for parameter, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        step.update()

    def step_kind(self, stage: Stage, step: int, context: Context) -> str:
        return str(self._drawn(torch_generator(context.seed, "noise", stage.name, step)))

    def _drawn(self, generator: torch.Generator) -> list[int]:
        """The widths of a step, by their place in `Config.widths`: the full, the narrowest, and others."""
        places = {width: place for place, width in enumerate(self.config.widths())}
        full, *between, narrowest = (places[width] for width in self.config.trained_widths())
        order = torch.randperm(len(between), generator=generator)[: self.config.random_widths]
        return [full, narrowest, *(between[i] for i in order.tolist())]

    def width_loss(self, network: SlimmableNetwork, index: int, step: Step, batch: Batch) -> dict[str, Tensor]:
        """The loss at one width; that of the full one, which comes first, keeps its logits for the others."""
        images, labels = samples(batch)
        embeddings, logits = network(images, width=index)
        weights = network.get_parameter("network.classifier.weight")
        if self.config.loss != "softmax":
            logits = margin_logits(embeddings.float(), weights, labels, "cosface", scale=self.config.scale, margin=0.0)
        if index == 0:
            step.keep(FULL_LOGITS, logits.detach().float())
        if index == 0 or self.config.training == "labels":
            return {"loss": self.class_losses(embeddings, logits, weights, labels).mean()}
        target = step.kept(FULL_LOGITS).softmax(dim=1)
        loss = F.kl_div(logits.float().log_softmax(dim=1), target, reduction="batchmean")
        step.log(**{"loss_narrowest" if index == len(network.switch.widths) - 1 else "loss_random": loss})
        return {"loss": loss}

    def plain_networks(self, modules: nn.ModuleDict) -> list[PlainNetwork]:
        network = cast(SlimmableNetwork, modules["network"])
        whole = backbone_weights(network.plain(0))
        found = []
        for name, width in self.config.named_widths().items():
            plain = network.plain(self.config.widths().index(width))
            found.append(_offered(name, plain, whole))
        return found

    def variant_on_demand(self, name: str, modules: nn.ModuleDict, context: Context) -> Variant | None:
        """`capacity_C` for any C in (0, 1], also one that was never trained; its statistics are collected now."""
        capacity = Capacity.from_name(name)
        if capacity is None:
            return None
        other = self._slimmable([1.0, _width(capacity.share)], context)
        other.load_state_dict(modules["network"].state_dict())
        offered = _offered(name, other.plain(-1), backbone_weights(other.plain(0)))
        return self.variant(offered, self.recalibrated(offered.build().to(context.device), context), context)

    def _slimmable(self, widths: list[float], context: Context) -> SlimmableNetwork:
        config, size = self.config, self.preprocessing(context).size
        try:
            return SlimmableNetwork(
                self.classified_embedding(context),
                widths,
                torch.zeros(2, context.metadata.channels, size, size),
                channels=mobilenet_v2_channels if "mobilenet" in config.network else truncated,
                full_outputs=FULL_OUTPUTS,
                unchanged=("classifier",),
                shared_norms=True,
            )
        except RuntimeError as error:
            fault = f"does not run at a smaller width ({error}); timm's network of this kind may (`timm/...`)"
            raise UserError(fault, field="network", value=config.network) from None


def _width(share: float) -> float:
    """The share of channels that keeps a share of the weights."""
    return round(sqrt(share), 4)


def _offered(name: str, plain: nn.Module, whole: int) -> PlainNetwork:
    """A network of one width, of whose full width the backbone has `whole` weights."""
    network = embedding_only(cast(ClassifiedEmbedding, plain))
    return PlainNetwork(name, backbone_weights(network) / whole, partial(copy.deepcopy, network))
