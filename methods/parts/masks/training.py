"""Training of a classifier through masks that are computed once a pass, however many micro-batches it has."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from subnetbench.harness.method import Context, LossFunction, Step, UserValues, Weights
from subnetbench.methods.parts.bases.classifier import ClassifierConfig, ClassifierMethod
from subnetbench.methods.parts.masks.foreign import described_by, fill_masked
from subnetbench.methods.parts.masks.masked_model import EffectiveWeights, MaskedModel, masked_network

ConfigT = TypeVar("ConfigT", bound=ClassifierConfig)


class MaskedClassifierMethod(ClassifierMethod[ConfigT]):
    """A classifier method whose module `network` is a `MaskedModel`."""

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        return described_by(weights)

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        fill_masked(masked_network(modules), weights, with_scores=self.config.imported)

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        masked_backward(masked_network(modules), step, lambda batch: self.loss(modules, batch, step))
        step.update()


def masked_backward(
    masked: MaskedModel, step: Step, loss: LossFunction, inputs: Sequence[nn.Parameter] | None = None
) -> None:
    """`step.backward(loss, inputs)` for a loss that is computed through `masked`.

    With several micro-batches, gradients are collected with respect to the effective weights and pass through the
    gates once. A single batch computes its masks once anyway, and without keeping those gradients needs one copy of
    the masked weights less.
    """
    if len(step.micro_batches) == 1:
        step.backward(loss, inputs)
        return
    chosen = step.parameters() if inputs is None else list(inputs)
    weights, gate_sum = masked.effective_weights()
    made = [*weights.values(), *([] if gate_sum is None else [gate_sum])]
    leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in made]
    held = EffectiveWeights(dict(zip(weights, leaves, strict=False)), None if gate_sum is None else leaves[-1])
    inner = [leaf for leaf in leaves if leaf.requires_grad]
    with masked.held(held):
        found = step.gradients(loss, [*inner, *chosen])
    for parameter, gradient in zip(chosen, found[len(inner) :], strict=True):
        parameter.grad = gradient
    outer = [tensor for tensor in made if tensor.requires_grad]
    used = [(tensor, gradient) for tensor, gradient in zip(outer, found, strict=False) if gradient is not None]
    torch.autograd.backward([tensor for tensor, _ in used], [gradient for _, gradient in used], inputs=chosen)
