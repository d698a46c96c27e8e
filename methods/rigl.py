"""RigL and SET: sparse from scratch, with connections that move while the network trains (Evci et al., ICML 2020)."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from subnetbench.harness.method import Context, LogUniform, Step, Uniform, register_method
from subnetbench.methods.parts.masks.at_start import SparseTraining, SparseTrainingConfig
from subnetbench.methods.parts.masks.magnitude import random_masks
from subnetbench.methods.parts.masks.masked_model import EffectiveWeights, MaskedModel, masked_network
from subnetbench.methods.parts.masks.order_statistics import keep_largest


def moved(weight: Tensor, mask: Tensor, growth: Tensor, share: float) -> Tensor:
    """The mask after one update (algorithm 1 of the paper): as many connections as before, of the shape of `mask`.

    The share `share` of the kept weights with the smallest |weight| is dropped, and as many of the others (those just
    dropped among them) with the largest `growth` >= 0 are grown.
    """
    kept = int(torch.count_nonzero(mask))
    count = int(share * kept)
    staying = keep_largest(weight.detach().abs().masked_fill(~mask, -1.0), kept - count)
    grown: Tensor = keep_largest(growth.masked_fill(staying, -1.0), count)
    return staying | grown


@register_method("rigl")
class RigL(SparseTraining["RigL.Config"]):
    """Starts from random masks; now and then drops the smallest |weight| and grows where the gradient is largest.

    `growth: random` grows anywhere: with `drop_decay: constant` and `updates_end: 1` that is SET (Mocanu et al. 2018,
    arXiv 1707.04780). With `drop_fraction: 0` the random masks stay. Unlike in the released code, a step that moves
    connections trains as well, so that what has just been grown, at 0, is not evaluated before its first step. What is
    grown where no signal passes stays 0, and counts as removed in the sparsity of the network.
    """

    paper = "Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery: Making All Tickets Winners, arXiv 1911.11134"
    tiny = {**SparseTraining.tiny, "update_every": 1}

    class Config(SparseTrainingConfig):
        scope: Annotated[
            Literal["erk", "layer"], Field(description="budgets by layer size, or the same share of each layer")
        ] = "erk"
        growth: Annotated[
            Literal["gradient", "random"],
            Field(description="where connections are grown: largest |gradient|, or anywhere"),
        ] = "gradient"
        drop_fraction: Annotated[
            float,
            Field(ge=0, lt=1, description="share of a layer's connections that the first update moves"),
            Uniform(0.1, 0.5),
        ] = 0.3
        drop_decay: Annotated[
            Literal["cosine", "constant"], Field(description="how that share falls until the last update")
        ] = "cosine"
        update_every: Annotated[int, Field(ge=1, description="steps between updates"), LogUniform(10, 300)] = 100
        updates_end: Annotated[float, Field(ge=0, le=1, description="share of training after which masks stay")] = 0.75

        def share_moved(self, step: int, total_steps: int) -> float:
            """The share of connections to move in a step, from 0: 0 where no update is due."""
            end = self.updates_end * total_steps
            if step % self.update_every or step >= end:
                return 0.0
            falls = self.drop_decay == "cosine"
            return self.drop_fraction * (0.5 * (1 + math.cos(math.pi * step / end)) if falls else 1.0)

    def choose(self, masked: MaskedModel, context: Context) -> dict[str, Tensor]:
        weights = {name: masked.weight(name) for name in masked.names}
        generator = context.torch_generator("masks", "random")
        return random_masks(weights, self.config.sparsity, self.config.scope, generator)

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        masked = masked_network(modules)
        share = self.config.share_moved(step.progress.step, step.progress.total_steps)
        if not share:
            super().training_step(modules, step)
        elif self.config.growth == "random":
            self._move(masked, step, share, _anywhere(masked, step))
            super().training_step(modules, step)
        else:
            gradients = self._dense_gradients(modules, step)
            self._move(masked, step, share, {name: g.abs() for name, g in gradients.items()})
            for name, gradient in gradients.items():
                masked.weight(name).grad = gradient * masked.score(name)
            step.update()

    def _dense_gradients(self, modules: nn.ModuleDict, step: Step) -> dict[str, Tensor]:
        """Gradients with respect to the masked weights, kept or not; those of all other parameters are set."""
        masked = masked_network(modules)
        weights = {name: value.detach().requires_grad_() for name, value in masked.effective_weights().weights.items()}
        own = {masked.weight(name) for name in masked.names}
        others = [parameter for parameter in step.parameters() if parameter not in own]
        with masked.held(EffectiveWeights(weights, None)):
            found = step.gradients(lambda batch: self.loss(modules, batch, step), [*weights.values(), *others])
        for parameter, gradient in zip(others, found[len(weights) :], strict=True):
            parameter.grad = gradient
        return {
            name: torch.zeros_like(weight) if gradient is None else gradient
            for (name, weight), gradient in zip(weights.items(), found, strict=False)
        }

    @torch.no_grad()
    def _move(self, masked: MaskedModel, step: Step, share: float, growth: dict[str, Tensor]) -> None:
        """Update all masks; new connections start at 0, without momentum."""
        state = step.optimizer("weights").state
        masks = {}
        changed = 0
        for name in masked.names:
            weight, mask = masked.weight(name), masked.score(name)
            masks[name] = moved(weight, mask, growth[name], share)
            new = masks[name] & ~mask
            momentum = state[weight].get("momentum_buffer") if weight in state else None
            for tensor in (weight, momentum):
                if tensor is not None:
                    tensor.masked_fill_(new, 0.0)
            changed += int(torch.count_nonzero(new))
        masked.set_masks(masks)
        step.log(moved=changed / masked.entries)


def _anywhere(masked: MaskedModel, step: Step) -> dict[str, Tensor]:
    """Uniform numbers for all masked weights, the same on all ranks and devices."""
    generator = step.generator("masks", device="cpu")
    drawn = {name: torch.rand(masked.weight(name).shape, generator=generator) for name in masked.names}
    return {name: value.to(masked.device) for name, value in drawn.items()}
