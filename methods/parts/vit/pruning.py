"""Masks on the heads and neurons of a ViT: calibration gradients, compaction, sensitivity pruning.

A mask is one factor a head and one a neuron, (layers, heads) and (layers, neurons), 1 meaning untouched. It
multiplies the inputs of the linear layer behind the heads, and of the one behind the neurons, by forward hooks, so
the model class stays as it is. Kwon et al. 2022 (arXiv 2204.09656); Michel et al. 2019 (arXiv 1905.10650).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import UserError, torch_generator
from subnetbench.methods.parts.vit.model import PlainViT


class Masks(NamedTuple):
    """Factors of the heads (layers, heads) and of the neurons (layers, neurons); 0 removes, 1 leaves alone."""

    heads: Tensor
    neurons: Tensor

    def kept(self) -> "Masks":
        """1 where something is kept, else 0."""
        return Masks(*((mask != 0).to(mask.dtype) for mask in self))


class CalibrationGradients(NamedTuple):
    """Gradients of each batch's loss with respect to the masks at their present values, and the losses.

    `heads` is (batches, layers, heads), `neurons` (batches, layers, neurons), `losses` (batches,).
    """

    heads: Tensor
    neurons: Tensor
    losses: Tensor


def full_masks(vit: PlainViT) -> Masks:
    """Masks of ones on the device of `vit`; raises `UserError` when its layers differ in size."""
    shape = vit.shape
    if not shape.uniform:
        raise UserError("can only be masked while all layers have the same size", field="vit", value=shape.heads)
    return Masks(
        vit.positions.new_ones(shape.layers, shape.heads[0]),
        vit.positions.new_ones(shape.layers, shape.neurons[0]),
    )


@contextmanager
def masked(vit: PlainViT, masks: Masks) -> Iterator[PlainViT]:
    """`vit` with the masks in force, which may require gradients."""
    with ExitStack() as stack:
        for layer, heads, neurons in zip(vit.stack, *masks, strict=True):
            factors = heads.repeat_interleave(vit.shape.head_width)
            for module, factor in ((layer.attention.output, factors), (layer.feed_forward.output, neurons)):
                stack.enter_context(_hooked(module, factor))
        yield vit


@contextmanager
def _hooked(module: nn.Module, factor: Tensor) -> Iterator[None]:
    def scale(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
        return (inputs[0] * factor,)

    handle = module.register_forward_pre_hook(scale)
    try:
        yield
    finally:
        handle.remove()


class MaskedViT(nn.Module):
    """`vit` under `masks`, as a network of its own: what compaction must reproduce."""

    heads: Tensor
    neurons: Tensor

    def __init__(self, vit: PlainViT, masks: Masks) -> None:
        super().__init__()
        self.vit = vit
        self.register_buffer("heads", masks.heads.detach().clone())
        self.register_buffer("neurons", masks.neurons.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        with masked(self.vit, Masks(self.heads, self.neurons)):
            result: Tensor = self.vit(images)
            return result


def symmetric_clip_loss(images: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    """CLIP's loss of n matching pairs (n, d): the mean of the cross entropies of both directions.

    Logits are cosines times exp(logit_scale).
    """
    logits = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T * math.exp(logit_scale)
    pairs = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def calibration_gradients(
    vit: PlainViT,
    batches: Iterable[tuple[Tensor, Tensor]],
    masks: Masks,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> CalibrationGradients:
    """Gradients of `loss(embeddings, targets)` of every batch (images, targets) with respect to the masks.

    The targets (embeddings of the captions) are given, so nothing flows through a text encoder. The weights get
    no gradients.
    """
    variables = Masks(*(mask.detach().clone().requires_grad_() for mask in masks))
    frozen = [parameter for parameter in vit.parameters() if parameter.requires_grad]
    rows: list[tuple[Tensor, ...]] = []
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for images, targets in batches:
            with masked(vit, variables):
                value = loss(vit(images), targets)
            rows.append((*torch.autograd.grad(value, variables), value.detach()))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    if not rows:
        raise UserError("at least one batch is needed for calibration", field="batches")
    return CalibrationGradients(*(torch.stack(column) for column in zip(*rows, strict=True)))


def fisher_information(gradients: Tensor) -> Tensor:
    """The diagonal of the empirical Fisher information, from gradients of batch means: their sum of squares."""
    return gradients.square().sum(dim=0)


def keep_best_head(heads: Tensor, information: Tensor) -> Tensor:
    """One step of sensitivity pruning: the new head mask (layers, heads).

    Of the layers that are still complete, the one that owns the most informative head keeps only that head. Michel
    et al. remove single heads; this coarser rule is that of the published cascades. A mask without a complete layer
    comes back unchanged.
    """
    complete = (heads != 0).all(dim=1)
    if not complete.any():
        return heads.clone()
    best = int(information.masked_fill(~complete[:, None], -torch.inf).argmax())
    layer, head = divmod(best, heads.shape[1])
    result = heads.clone()
    result[layer] = 0
    result[layer, head] = heads[layer, head]
    return result


def sensitivity_masks(masks: Masks, steps: int, gradients: Callable[[Masks], Tensor]) -> Masks:
    """`steps` times `keep_best_head`, each with head gradients (batches, layers, heads) under the present masks."""
    if not 0 <= steps <= len(masks.heads):
        raise UserError("each step empties one layer", field="steps", value=steps, allowed=f"0 to {len(masks.heads)}")
    for _ in range(steps):
        information = fisher_information(gradients(masks))
        masks = Masks(keep_best_head(masks.heads, information), masks.neurons)
    return masks


def random_masks(like: Masks, seed: int) -> Masks:
    """Masks that keep as many heads and neurons as `like`, drawn anywhere in the network: the same MACs."""
    drawn = []
    for name, mask in zip(like._fields, like, strict=True):
        generator = torch_generator(seed, "masks", "random", name)
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        flat = torch.zeros_like(mask).flatten()
        flat[order[: int((mask != 0).sum())]] = 1
        drawn.append(flat.view_as(mask))
    return Masks(*drawn)


@torch.no_grad()
def compact(vit: PlainViT, masks: Masks) -> PlainViT:
    """A smaller `PlainViT` that computes what `vit` computes under `masks`.

    Removed heads and neurons lose their rows and columns; the factors of the kept ones move into the linear layer
    behind them. A layer that lost everything only adds its bias.
    """
    heads = tuple(int((row != 0).sum()) for row in masks.heads)
    neurons = tuple(int((row != 0).sum()) for row in masks.neurons)
    small = PlainViT(vit.shape.model_copy(update={"heads": heads, "neurons": neurons}))
    small.to(vit.positions.device, vit.positions.dtype).train(vit.training)
    state = vit.state_dict()
    for index, (head_mask, neuron_mask) in enumerate(zip(*masks, strict=True)):
        channels = head_mask.repeat_interleave(vit.shape.head_width)
        columns = channels.nonzero().flatten()
        query_key_value = torch.cat([columns + part * len(channels) for part in range(3)])
        _keep_rows(state, f"layers.{index}.attention.query_key_value", query_key_value)
        _keep_columns(state, f"layers.{index}.attention.output", channels)
        _keep_rows(state, f"layers.{index}.feed_forward.hidden", neuron_mask.nonzero().flatten())
        _keep_columns(state, f"layers.{index}.feed_forward.output", neuron_mask)
    small.load_state_dict(state)
    return small


def _keep_rows(state: dict[str, Tensor], layer: str, rows: Tensor) -> None:
    for name in (f"{layer}.weight", f"{layer}.bias"):
        state[name] = state[name][rows]


def _keep_columns(state: dict[str, Tensor], layer: str, factors: Tensor) -> None:
    kept = factors.nonzero().flatten()
    state[f"{layer}.weight"] = state[f"{layer}.weight"][:, kept] * factors[kept]
