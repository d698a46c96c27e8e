"""SwitchNet: a slimmable network whose widths search one gallery, and the methods it is compared with."""

import re
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Annotated, Any, Literal, Self, cast

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
    Uniform,
    UserError,
    UserValues,
    Variant,
    Weights,
    fill,
    register_method,
)
from subnetbench.methods.parts.capacity.capacity import DENSE, Capacity
from subnetbench.methods.parts.capacity.config import CapacityConfig, Share
from subnetbench.methods.parts.capacity.integration import draw_orders
from subnetbench.methods.parts.capacity.method import CapacityMethod, PlainNetwork, embedding_only, samples
from subnetbench.methods.parts.capacity.scores import backbone_weights
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork, mobilenet_v2_channels, truncated
from subnetbench.methods.parts.capacity.widths import (
    WidthGradients,
    WidthSlices,
    filter_by_filter,
    integrate_widths,
    merge_sfsc,
)
from subnetbench.methods.parts.losses.margin import asymmetric_triplet_loss, evidential_loss
from subnetbench.methods.parts.networks.foreign import compatible_fields, compatible_names
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding

BATCH_NORM = re.compile(r"\.bn\.(\d+)\.")
DENSE_EMBEDDINGS = "dense_embeddings"
FULL_OUTPUTS = ("projector.linear", "projector.norm")

Training = Literal["compatible", "joint", "sfsc", "asymmetric", "independent", "multi_independent", "bct"]


@register_method("switchnet")
class SwitchNet(CapacityMethod["SwitchNet.Config"]):
    """Width w keeps the first int(w C) channels of every layer, so capacity is about w^2; each has its own batch norms.

    `training` says how the widths are trained:
    compatible: each against the full width's classifier, gradients combined as in PrunNet (the paper's SwitchNet);
    joint: the sum of all losses, all gradients flow everywhere (slimmable networks, Yu et al. 2019);
    sfsc: PCGrad over all parameters, then the mean, optionally with an evidential loss (Wu et al. 2022);
    asymmetric: narrow widths by triplets of their anchors with the full width's embeddings;
    independent: one network of one capacity alone, in a space of its own;
    multi_independent: one network a width, trained together with the full network's classifier;
    bct: one narrow network against the frozen classifier of a finished dense run, the input `dense`.

    `preset: paper` is the published recipe for GLDv2, whose ResNet-18 is not PrunNet's. The released code cannot run
    its integration on this network; the intent is implemented, and every width's batch norms keep their own gradient.
    """

    paper = "Sun et al., Learning Compatible Multi-Prize Subnetworks for Asymmetric Retrieval, arXiv 2504.11879"

    class Config(CapacityConfig):
        paper_defaults = {**CapacityConfig.paper_defaults, "network": "switchnet_resnet18"}
        searched_when = {
            "gradients": {"training": ("compatible",)},
            "exponent": {"training": ("compatible",), "gradients": ("conflict_aware",)},
            "triplet_margin": {"training": ("asymmetric",)},
        }

        training: Annotated[Training, Field(description="how the widths are trained (see `subnetbench methods`)")] = (
            "compatible"
        )
        widths: Annotated[
            tuple[Share, ...] | None,
            Field(min_length=1, description="shares of channels; null: the square roots of `capacities`"),
        ] = None
        triplet_margin: Annotated[float, Field(ge=0, description="asymmetric: margin"), Uniform(0.1, 1.0)] = 0.3
        evidential: Annotated[bool, Field(description="sfsc: add the evidential loss")] = False
        evidential_regularisation: Annotated[
            float, Field(ge=0, description="sfsc: weight of the divergence from a uniform Dirichlet distribution")
        ] = 5e-4

        @model_validator(mode="after")
        def _possible(self) -> Self:
            if self.dim is None:
                raise ValueError("dim: widths need a projector to share an embedding size")
            if self.training in ("independent", "bct") and len(self.widths or self.capacities) != 1:
                raise ValueError(f"capacities: training {self.training!r} is of one capacity, not of several")
            return self

        def named_widths(self) -> dict[str, float]:
            """The widths that are trained by name, the widest first; the full one is among them unless one is alone."""
            if self.widths is None:
                found = {Capacity(share).name: round(sqrt(share), 4) for share in self.capacities}
            else:
                found = {DENSE if width == 1 else f"width_{width:g}": width for width in self.widths}
            if self.training not in ("independent", "bct"):
                found[DENSE] = 1.0
            return dict(sorted(found.items(), key=lambda item: -item[1]))

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, dict[str, object]]:
        if config.training != "bct":
            return {}
        dense = {**config.model_dump(mode="json"), "training": "independent", "capacities": [1.0], "widths": None}
        return {"dense": {"method": "switchnet", "config": dense}}

    def build(self, context: Context) -> nn.ModuleDict:
        config = self.config
        chosen = list(config.named_widths().values())
        size = self.preprocessing(context).size
        try:
            slimmable = SlimmableNetwork(
                self.classified_embedding(context),
                sorted({1.0, *chosen}, reverse=True),
                torch.zeros(2, context.metadata.channels, size, size),
                channels=mobilenet_v2_channels if "mobilenet" in config.network else truncated,
                full_outputs=FULL_OUTPUTS,
                unchanged=("classifier",),
            )
        except RuntimeError as error:
            fault = f"does not run at a smaller width ({error}); timm's network of this kind may (`timm/...`)"
            raise UserError(fault, field="network", value=config.network) from None
        sizes = [backbone_weights(slimmable.plain(i)) for i in range(len(slimmable.switch.widths))]
        self._kept = [size / sizes[0] for size in sizes[-len(chosen) :]]
        if config.training in ("independent", "bct"):
            network = cast(ClassifiedEmbedding, slimmable.plain(-1))
            if config.training == "bct":
                dense = cast(ClassifiedEmbedding, context.input("dense").modules["network"])
                network.classifier.load_state_dict(dense.classifier.state_dict())
                network.classifier.requires_grad_(False)
            return nn.ModuleDict({"network": network})
        if config.training == "multi_independent":
            networks: list[Any] = [slimmable.plain(i) for i in range(len(chosen))]
            for narrow in networks[1:]:
                narrow.classifier = nn.Identity()  # it uses the full network's
            return nn.ModuleDict({"networks": nn.ModuleList(networks)})
        return nn.ModuleDict({"network": slimmable})

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        return compatible_fields(weights, "switchnet")

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        network = dict(modules.items()).get("network")
        if not isinstance(network, SlimmableNetwork):
            raise UserError("files hold one slimmable network", field="training", value=self.config.training)
        last = len(network.switch.widths) - 1

        def narrowest_last(name: str) -> str:
            """Published files begin with the narrowest width, networks here with the widest."""
            return BATCH_NORM.sub(lambda found: f".bn.{last - int(found[1])}.", name)

        own = {name.removeprefix("network.") for name in network.state_dict()}
        named = compatible_names(weights.tensors, own)
        fill(network, weights.renamed({f"network.{narrowest_last(name)}": each for name, each in named.items()}))

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        if self._is_slimmable():
            self.slices = WidthSlices(cast(SlimmableNetwork, modules["network"]))

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        optimizations = self.optimization(modules)
        if self.config.training == "sfsc":
            optimizations["weights"].clip_norm = None
        return optimizations

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        if self._is_slimmable():
            self._slimmable_step(cast(SlimmableNetwork, modules["network"]), step)
        elif "networks" in modules:
            self._separate_step(cast(nn.ModuleList, modules["networks"]), step)
        else:
            network = cast(ClassifiedEmbedding, modules["network"])
            step.backward(partial(self.plain_loss, network, network.classifier))
        step.update()

    def _slimmable_step(self, network: SlimmableNetwork, step: Step) -> None:
        """One gradient a width, combined as `training` says."""
        config, slices = self.config, self.slices
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        gradients: list[WidthGradients] = []
        others = {name: p for name, p in named.items() if name not in slices.weights}
        for i in range(len(network.switch.widths)):
            leaves = slices.leaves(i)
            used = {**leaves, **others}
            raw = step.gradients(partial(self.width_loss, network, i, leaves, step), list(used.values()))
            clip = config.capacity_clip_norm if config.training == "compatible" and i else None
            gradients.append(slices.finish(i, dict(zip(used, raw, strict=True)), clip_norm=clip))
        if config.training == "sfsc":
            combined = merge_sfsc(gradients, self.projection_orders(step))
        else:
            combined = self._combined(gradients, step)
        for name, parameter in named.items():
            parameter.grad = combined.get(name)

    def _combined(self, gradients: list[WidthGradients], step: Step) -> dict[str, Tensor]:
        config = self.config
        rule = config.gradients if config.training == "compatible" else "sum"
        summed: dict[str, Tensor] = {}
        if config.training != "compatible" or config.heads == "all":
            for part in gradients:
                for name, gradient in part.items():
                    if gradient is not None and name not in self.slices.weights:
                        summed[name] = summed[name] + gradient if name in summed else gradient
        integrated = integrate_widths(
            gradients,
            self.slices.weights,
            None if rule == "sum" else self.projection_orders(step),
            rule=rule,
            exponent=config.exponent,
            per_filter=config.per_filter,
            use_dot=config.agreement == "dot",
        )
        return {**integrated, **summed}

    def _separate_step(self, networks: nn.ModuleList, step: Step) -> None:
        """The sum of all networks' losses, one network after the other; what they share gets all gradients."""
        for parameter in step.parameters():
            parameter.grad = None
        classifier = cast(ClassifiedEmbedding, networks[0]).classifier
        for network in networks:
            own = list({**dict(network.named_parameters()), **dict(classifier.named_parameters("classifier"))}.values())
            found = step.gradients(partial(self.plain_loss, network, classifier), own)
            for parameter, gradient in zip(own, found, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def projection_orders(self, step: Step) -> Tensor:
        """The random orders in which conflicts are resolved in a step, the same on all ranks."""
        count, generator = len(self.config.named_widths()), step.generator("noise")
        if self.config.training == "sfsc" or self.config.gradients == "pcgrad":
            return draw_orders(count, [False], generator)[0]
        return draw_orders(count, filter_by_filter(self.slices.weights, self.config.per_filter), generator)

    def plain_loss(self, network: nn.Module, classifier: nn.Linear, batch: Batch) -> dict[str, Tensor]:
        """The loss of one plain network against `classifier`."""
        images, labels = samples(batch)
        embeddings = cast(ClassifiedEmbedding, network).embed(images)
        logits = classifier(embeddings)
        correct = (logits.detach().argmax(1) == labels).float().mean()
        return {"loss": self.class_losses(embeddings, logits, classifier.weight, labels).mean(), "accuracy": correct}

    def width_loss(
        self, network: SlimmableNetwork, index: int, leaves: dict[str, Tensor], step: Step, batch: Batch
    ) -> dict[str, Tensor]:
        """The loss at one width, whose slices of the shared weights are `leaves`; triplets are of one forward pass."""
        config = self.config
        images, labels = samples(batch)
        embeddings, logits = functional_call(network, leaves, (images,), {"width": index})
        if config.training == "asymmetric":
            if index:
                dense = step.kept(DENSE_EMBEDDINGS)
                return {
                    "loss": asymmetric_triplet_loss(embeddings.float(), dense, labels, margin=config.triplet_margin)
                }
            step.keep(DENSE_EMBEDDINGS, embeddings.detach().float())
        weights = network.get_parameter("network.classifier.weight")
        loss = self.class_losses(embeddings, logits, weights, labels).mean()
        if index:
            step.log(**{f"loss_{list(config.named_widths())[index]}": loss})
        if config.training == "sfsc" and config.evidential:
            evidence = evidential_loss(logits.float(), labels, regularisation=config.evidential_regularisation)
            loss = loss + evidence / len(network.switch.widths)
        return {"loss": loss}

    def plain_networks(self, modules: nn.ModuleDict) -> list[PlainNetwork]:
        def build(index: int) -> nn.Module:
            if "networks" in modules:
                network = cast(nn.ModuleList, modules["networks"])[index]
            else:
                network = modules["network"]
            if isinstance(network, SlimmableNetwork):
                network = network.plain(index)
            return embedding_only(cast(ClassifiedEmbedding, network))

        named = zip(self.config.named_widths(), self._kept, strict=True)
        return [PlainNetwork(name, kept, partial(build, i)) for i, (name, kept) in enumerate(named)]

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        own = super().variants(modules, context)
        if self.config.training != "bct":
            return own
        dense = context.input("dense").variant()
        return [*(replace(variant, space=dense.space) for variant in own), replace(dense, frozen=True)]

    def _is_slimmable(self) -> bool:
        return self.config.training in ("compatible", "joint", "sfsc", "asymmetric")
