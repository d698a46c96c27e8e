"""Continuous Sparsification: soft gates that harden while weights train (Savarese et al., NeurIPS 2020)."""

from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    LogUniform,
    Optimization,
    Stage,
    Step,
    TaskData,
    Uniform,
    Variant,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.bases.classifier import ClassifierConfig
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network, masked_network
from subnetbench.methods.parts.masks.masks import ContinuousMask, between_rounds_, temperature_at
from subnetbench.methods.parts.masks.rewinding import copy_state
from subnetbench.methods.parts.masks.statistics import mask_statistics
from subnetbench.methods.parts.masks.training import MaskedClassifierMethod
from subnetbench.methods.parts.optim.groups import ParameterGroup
from subnetbench.methods.parts.optim.schedules import LearningRateSchedule, MultiStep, make_schedule

TICKET = "ticket"


@register_method("continuous_sparsification")
class ContinuousSparsification(MaskedClassifierMethod["ContinuousSparsification.Config"]):
    """Search rounds with gates c sigmoid(beta s), beta rising in each; then the open gates' weights are rewound.

    Sparsity follows from `mask_initial_value`. The ticket is the network of open gates, trained from the weights of
    `rewind_epoch` (or, with `prune_only`, fine-tuned from those at the end of the search). The variant `search` is
    the network of open gates before that.

    Difference of `preset: paper`: between rounds scores are only clamped (`round_transition: clamp`), because the
    released driver resets beta first, so rounds do not compound; the default scales by beta before clamping.
    """

    paper = "Savarese, Silva, Maire, Winning the Lottery with Continuous Sparsification, arXiv 1912.04427"
    tiny = {"network": "resnet20", "image_size": 8, "epochs": 2, "rounds": 2, "rewind_epoch": 1}

    class Config(ClassifierConfig):
        paper_defaults = {"round_transition": "clamp"}

        network: Annotated[
            str,
            Field(description="conv2, conv4, conv6, resnet20, or any timm or torchvision classifier"),
            operating_point,
        ] = "resnet20"
        epochs: Annotated[int, Field(ge=0, description="epochs of each round, and of the ticket"), operating_point] = 85
        rounds: Annotated[int, Field(ge=1, description="search rounds"), operating_point] = 3
        rewind_epoch: Annotated[int, Field(ge=0, description="the ticket starts from the weights after this epoch")] = 2
        mask_initial_value: Annotated[
            float, Field(description="scores at the start; larger keeps more"), Uniform(-0.3, 0.3)
        ] = 0.0
        final_temperature: Annotated[float, Field(ge=1, description="beta in the last epoch of a round")] = 200.0
        penalty: Annotated[
            float, Field(ge=0, description="weight of the sum of all gates"), LogUniform(1e-10, 1e-6)
        ] = 1e-8
        round_transition: Annotated[
            Literal["scale_then_clamp", "clamp"], Field(description="what happens to scores between rounds")
        ] = "scale_then_clamp"
        temperature_step: Annotated[Literal["epoch", "step"], Field(description="how often beta rises")] = "epoch"
        ticket_schedule: Annotated[
            Literal["restart", "continue"],
            Field(description="the ticket's learning rate starts afresh, or continues from rewind_epoch"),
        ] = "restart"
        prune_only: Annotated[bool, Field(description="keep the searched weights instead of rewinding them")] = False
        offer_search: Annotated[
            bool, Field(description="also evaluate the network of open gates before the ticket is trained")
        ] = True
        masked_layers: Annotated[
            tuple[str, ...], Field(description="name patterns of masked layers; none: all convolutions but shortcuts")
        ] = ()
        schedule: Annotated[
            Literal["multistep", "constant", "cosine", "onecycle"],
            Field(description="course of the learning rate over each stage"),
        ] = "multistep"
        milestones: Annotated[
            tuple[float, ...], Field(description="multistep: shares of a stage at which the rate falls to a tenth")
        ] = (56 / 85, 71 / 85)
        nesterov: Annotated[bool, Field(description="Nesterov momentum")] = True
        weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on weights"), LogUniform(1e-6, 1e-2)] = 1e-4
        mask_lr: Annotated[
            float | None, Field(gt=0, description="peak learning rate of scores; null: that of weights")
        ] = None
        mask_weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on scores")] = 0.0

        @model_validator(mode="after")
        def _rewinds_into_training(self) -> Self:
            if self.rewind_epoch >= self.epochs > 0 and not self.prune_only:
                raise ValueError(f"rewind_epoch {self.rewind_epoch} must be smaller than epochs {self.epochs}")
            return self

    def __init__(self, config: "ContinuousSparsification.Config") -> None:
        super().__init__(config)
        # One optimizer for all search rounds: momentum is kept from round to round.
        self._search: Optimization | None = None

    def build(self, context: Context) -> nn.ModuleDict:
        network = self.plain_network(context)
        where: Any = list(self.config.masked_layers) or list(getattr(network, "MASKED", ())) or nn.Conv2d
        return nn.ModuleDict({"network": mask_network(network, ContinuousMask(self.config.mask_initial_value), where)})

    def stages(self, context: Context) -> list[Stage]:
        config = self.config
        search = [Stage(f"round{i + 1}", config.epochs, select=False) for i in range(config.rounds)]
        skipped = config.rewind_epoch if config.ticket_schedule == "continue" and not config.prune_only else 0
        return [*search, Stage(TICKET, config.epochs - skipped, select=False)]

    def budget(self, data: TaskData) -> str:
        return self.config.budget(self.config.epochs * (self.config.rounds + 1), len(data.train))

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        masked = masked_network(modules)
        config = self.config
        if stage.name == TICKET:
            self.state["search"] = copy_state(masked.base)
            if not config.prune_only:
                masked.base.load_state_dict(self.state.pop("rewind"))
        elif stage.name != "round1":
            for name in masked.names:
                between_rounds_(
                    masked.score(name),
                    config.mask_initial_value,
                    float(temperature_of(masked)),
                    config.round_transition,
                )

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        masked_network(modules).mode = "final" if stage.name == TICKET else "search"
        if stage.name != TICKET and self._search is None:
            self._search = self._search_optimization(masked_network(modules), stage)

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        masked = masked_network(modules)
        if stage.name != TICKET:
            assert self._search is not None
            return {"search": self._search}
        return {"weights": self._sgd([self._weights(masked)], self._schedule(stage))}

    def _search_optimization(self, masked: MaskedModel, stage: Stage) -> Optimization:
        config = self.config
        scores: ParameterGroup = {
            "params": masked.score_parameters(),
            "lr": config.mask_lr or config.lr,
            "weight_decay": config.mask_weight_decay,
        }
        return self._sgd([self._weights(masked), scores], self._schedule(stage))

    def _weights(self, masked: MaskedModel) -> ParameterGroup:
        return {"params": list(masked.base.parameters()), "weight_decay": self.config.weight_decay}

    def _schedule(self, stage: Stage) -> LearningRateSchedule:
        chosen = self.config.schedule
        return MultiStep(self._milestones(stage)) if chosen == "multistep" else make_schedule(chosen)

    def _sgd(self, groups: list[ParameterGroup], schedule: LearningRateSchedule) -> Optimization:
        config = self.config
        return Optimization(torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.nesterov), schedule)

    def _milestones(self, stage: Stage) -> tuple[int, ...]:
        skipped = self.config.epochs - stage.epochs
        return tuple(round(share * self.config.epochs) - skipped for share in self.config.milestones)

    def start_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        masked = masked_network(modules)
        if stage.name == "round1" and epoch == self.config.rewind_epoch and not self.config.prune_only:
            self.state["rewind"] = copy_state(masked.base)
        if stage.name != TICKET and self.config.temperature_step == "epoch":
            temperature_of(masked).fill_(temperature_at(epoch, stage.epochs, self.config.final_temperature))

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        masked = masked_network(modules)
        if masked.mode == "search" and self.config.temperature_step == "step":
            now = temperature_at(step.progress.step, step.progress.total_steps, self.config.final_temperature)
            temperature_of(masked).fill_(now)
        super().training_step(modules, step)

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        masked = masked_network(modules)
        weights, gate_sum = masked.effective_weights()
        logits = masked.call(weights, batch.images).float()
        cross_entropy = F.cross_entropy(logits, batch.labels)
        assert gate_sum is not None
        correct = (logits.detach().argmax(1) == batch.labels).float().mean()
        loss = cross_entropy + self.config.penalty * gate_sum
        return {"loss": loss, "cross_entropy": cross_entropy, "gates": gate_sum, "accuracy": correct}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        masked = masked_network(modules)
        share = mask_statistics(masked)[0].pruned_fraction
        details: dict[str, float | str] = {"masked_sparsity": share}
        found = [Variant(TICKET, lambda: masked.finalise().eval(), self.preprocessing(context), details=details)]
        if "search" in self.state and self.config.offer_search:
            found.append(
                Variant("search", lambda: self._searched(masked), self.preprocessing(context), details=details)
            )
        return found

    def _searched(self, masked: MaskedModel) -> nn.Module:
        """The open gates' network with the weights at the end of the search, without further training."""
        plain = masked.finalise().eval()
        plain.load_state_dict(self.state["search"])
        with torch.no_grad():
            for layer, name in enumerate(masked.names):
                keep = masked.mask.keep(masked.score(name))
                plain.get_parameter(name).mul_(keep * masked.mask.gain(layer, keep))
        return plain


def temperature_of(masked: MaskedModel) -> Tensor:
    """The 0-d buffer that holds beta."""
    return masked.mask.get_buffer("temperature")
