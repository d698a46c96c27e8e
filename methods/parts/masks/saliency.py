"""Scores of weights before any training: by one gradient (SNIP), by its change (GraSP), without data (SynFlow).

All take a `MaskedModel` with fresh weights and leave it as it is. Running statistics do not move.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from subnetbench.harness.method import Context, Preprocessing, RunFailure, batch_slices
from subnetbench.methods.parts.masks.magnitude import largest_masks
from subnetbench.methods.parts.masks.masked_model import MaskedModel
from subnetbench.methods.parts.networks.batch_norm import running_statistics_kept

Scores = dict[str, Tensor]
"""One score a weight, of the weights' shapes, by parameter name."""


@dataclass(frozen=True)
class Examples:
    """Training images without augmentation, in batches of at most `size`, each of which one rank gets.

    Iterating gives images (n, channels, side, side) and labels (n,) of this rank's batches; the cuts are the same on any
    number of ranks. `len` counts the images of all ranks.
    """

    indices: np.ndarray
    size: int
    preprocessing: Preprocessing
    context: Context

    @classmethod
    def drawn(cls, context: Context, preprocessing: Preprocessing, images: int, size: int) -> "Examples":
        """So many images at random (all, where there are fewer)."""
        order = context.numpy_generator("masks", "examples").permutation(len(context.data.train))
        return cls(order[:images], size, preprocessing, context)

    @classmethod
    def of_each_class(cls, context: Context, preprocessing: Preprocessing, images: int, size: int) -> "Examples":
        """So many images of each class at random (all, where there are fewer), in mixed order."""
        order = context.numpy_generator("masks", "examples").permutation(len(context.data.train))
        labels = context.data.train.labels[order]
        position = np.empty(len(order), dtype=np.int64)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            position[members] = np.arange(len(members))
        return cls(order[position < images], size, preprocessing, context)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        context = self.context
        batches = [self.indices[part] for part in batch_slices(len(self.indices), self.size)]
        for batch in batches[context.world.rank :: context.world.size]:
            labels = context.train_labels[torch.from_numpy(batch)]
            yield self.preprocessing(context.data.train.images, batch, context.device), labels

    def __len__(self) -> int:
        return len(self.indices)

    def sum_over_ranks(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks."""
        self.context.world.sum_(tensors)


def snip_scores(masked: MaskedModel, examples: Examples) -> Scores:
    """|w dL/dw|, how much the loss changes as a weight begins to go (Lee et al. 2019, equations 5 and 6, unscaled).

    L is the mean cross-entropy over the examples.

    Raises:
        RunFailure: Where the scores do not order the weights: not finite, or all 0.
    """
    weights = _leaves(masked)
    gradients = _gradients(masked, weights, examples, temperature=1.0)
    scores = {name: (weight.detach() * g).abs() for (name, weight), g in zip(weights.items(), gradients, strict=True)}
    return _usable(scores)


def grasp_scores(masked: MaskedModel, examples: Examples, temperature: float) -> Scores:
    """-w (H g), how much the gradient's squared norm falls as a weight goes (Wang et al. 2020, equation 8).

    g is the gradient of the mean cross-entropy of logits / `temperature`, H its Hessian. The larger a score, the less is
    lost with the weight.

    Raises:
        RunFailure: Where the scores do not order the weights: not finite, or all 0.
    """
    weights = _leaves(masked)
    direction = _gradients(masked, weights, examples, temperature)
    curved = [torch.zeros_like(weight) for weight in weights.values()]
    for loss in _losses(masked, weights, examples, temperature):
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
        along = torch.stack([(one * other).sum() for one, other in zip(first, direction, strict=True)]).sum()
        _add_gradients(along, weights.values(), curved)
    examples.sum_over_ranks(curved)
    scores = {name: -weight.detach() * hg for (name, weight), hg in zip(weights.items(), curved, strict=True)}
    return _usable(scores)


def synflow_masks(
    masked: MaskedModel, sparsity: float, iterations: int, image_shape: tuple[int, int, int]
) -> dict[str, Tensor]:
    """Masks by iterative synaptic flow (Tanaka et al. 2020, algorithm 1): no data, and no layer is emptied early.

    Iteration k of n keeps the share (1 - sparsity)^(k / n) with the largest score theta dR/dtheta, where R is the sum of
    the outputs for an image of ones, in evaluation mode, with all parameters and statistics replaced by their absolute
    values. Computed in float64, for R grows with every layer.

    Raises:
        RunFailure: Where the scores do not order the weights: not finite, or all 0.
    """
    linear = copy.deepcopy(masked.base).double().eval()
    tensors = {**dict(linear.named_parameters()), **dict(linear.named_buffers())}
    positive = {name: tensor.detach().abs() for name, tensor in tensors.items()}
    ones = torch.ones(1, *image_shape, dtype=torch.float64, device=masked.device)
    masks = {name: torch.ones_like(masked.weight(name), dtype=torch.bool) for name in masked.names}
    for iteration in range(1, iterations + 1):
        weights = {name: (positive[name] * mask).requires_grad_() for name, mask in masks.items()}
        flow = functional_call(linear, {**positive, **weights}, (ones,)).sum()
        gradients = torch.autograd.grad(flow, list(weights.values()), materialize_grads=True)
        scores = _usable({name: weights[name].detach() * g for name, g in zip(weights, gradients, strict=True)})
        reached = sparsity if iteration == iterations else 1 - (1 - sparsity) ** (iteration / iterations)
        chosen = largest_masks({name: score.masked_fill(~masks[name], -1.0) for name, score in scores.items()}, reached)
        masks = {name: chosen[name] & mask for name, mask in masks.items()}
    return masks


def _leaves(masked: MaskedModel) -> dict[str, Tensor]:
    return {name: masked.weight(name).detach().clone().requires_grad_() for name in masked.names}


def _losses(
    masked: MaskedModel, weights: dict[str, Tensor], examples: Examples, temperature: float
) -> Iterator[Tensor]:
    """This rank's parts of the mean loss, as a function of `weights`, with statistics of the batch as in training."""
    with running_statistics_kept(masked.base.train()):
        for images, labels in examples:
            logits = masked.call(weights, images).float()
            yield F.cross_entropy(logits / temperature, labels, reduction="sum") / len(examples)


def _gradients(masked: MaskedModel, weights: dict[str, Tensor], examples: Examples, temperature: float) -> list[Tensor]:
    total = [torch.zeros_like(weight) for weight in weights.values()]
    for loss in _losses(masked, weights, examples, temperature):
        _add_gradients(loss, weights.values(), total)
    examples.sum_over_ranks(total)
    return total


def _add_gradients(value: Tensor, inputs: Iterable[Tensor], total: list[Tensor]) -> None:
    for sum_, gradient in zip(total, torch.autograd.grad(value, list(inputs), materialize_grads=True), strict=True):
        sum_.add_(gradient)


def _usable(scores: Scores) -> Scores:
    if not all(score.isfinite().all() for score in scores.values()):
        raise RunFailure("scores of the fresh weights are not finite", reason="nan")
    if not any(score.any() for score in scores.values()):
        raise RunFailure("scores of the fresh weights are all 0: nothing passes through the network")
    return scores
