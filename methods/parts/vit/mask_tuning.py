"""Tuning of pruned ViT layers by linear least squares: the third stage of Kwon et al. 2022 (arXiv 2204.09656).

Each kept head and neuron gets a factor, chosen so that the layer's output comes closest to that of the dense network.
The published code builds a design matrix A with a row for every token and channel, and solves on A^T A. That matrix
is never needed: with activations h (tokens, units) and the weights W (units, channels) behind them,

    A^T A = (h^T h) o (W W^T)        A^T b = rowsum((h^T b) o W)

(o: elementwise), and the equations of heads are block sums of those of their channels. Minutes instead of hours.
"""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from subnetbench.methods.parts.vit.model import Layer, PlainViT
from subnetbench.methods.parts.vit.pruning import Masks


class NormalEquations(NamedTuple):
    """A least-squares problem: gram = A^T A (n, n) and moments = A^T target (n,), in float64."""

    gram: Tensor
    moments: Tensor


class TuningStep(NamedTuple):
    """One solved problem. The last factor of `heads` belongs to a constant column and is not used."""

    layer: int
    part: Literal["heads", "neurons"]
    equations: NormalEquations
    factors: Tensor


_States = tuple[Tensor, Tensor]
"""Hidden states of one batch in the dense and in the pruned network, both (n, tokens, width)."""


def solve_factors(equations: NormalEquations) -> Tensor:
    """Factors 1 + x with (G^2 + I) x = G r, r = moments - G 1: the minimiser of |G x - r|^2 + |x|^2.

    G is symmetric, so G^2 + I = (G + iI)(G - iI), and x is the real part of (G - iI)^-1 r: one solve with the
    condition number of G, not with its square.
    """
    gram, moments = equations
    residual = moments - gram.sum(dim=1)
    shifted = gram.to(torch.complex128)
    shifted.diagonal().sub_(1j)
    result: Tensor = 1 + torch.linalg.solve(shifted, residual.to(torch.complex128)).real
    return result


@torch.no_grad()
def tune_masks(
    vit: PlainViT,
    masks: Masks,
    batches: Iterable[Tensor],
    *,
    limit: float | None = 10.0,
    scratch: Path | None = None,
    report: Callable[[TuningStep], None] | None = None,
) -> Masks:
    """`masks` times the factors that bring each layer closest to the dense network's, from the first layer on.

    The dense and the pruned network are each fed their own hidden states; the heads of the first layer keep their
    factors, as published.

    Args:
        vit: The dense network.
        masks: 0 for what is pruned.
        batches: Images (n, channels, size, size).
        limit: Factors beyond +- this are cut to it (Kwon et al. give up there); None takes them as they are, as the
            published cascades do.
        scratch: Folder for files of hidden states; None: in memory. Those of all images at one layer are held twice,
            8 * images * tokens * width bytes: 0.3 GB for 256 images of a ViT-B/16, 10 GB for 8,192.
        report: Called with every solved problem.
    """
    device = vit.positions.device
    masks = Masks(*(mask.clone() for mask in masks))

    def solve(layer: int, part: Literal["heads", "neurons"], problem: "_Problem | None") -> None:
        if problem is None:
            return
        equations = problem.equations()
        factors = solve_factors(equations)
        if report is not None:
            report(TuningStep(layer, part, equations, factors))
        if limit is not None:
            factors = factors.clamp(-limit, limit)
        mask = getattr(masks, part)[layer]
        kept = mask != 0
        mask[kept] *= factors[: int(kept.sum())].to(mask.dtype)

    with ExitStack() as stack:
        folder = None
        if scratch is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
        states: list[_States] = []
        for number, images in enumerate(batches):
            tokens = vit.embed_patches(images.to(device))
            states.append((_hold(tokens, folder, f"dense-{number}"), _hold(tokens, folder, f"pruned-{number}")))
        for index, layer in enumerate(vit.stack):
            heads, neurons = masks.heads[index], masks.neurons[index]
            problem = _head_problem(layer, heads) if index else None
            _run_dense_layer(layer, heads, states, problem)
            solve(index, "heads", problem)
            problem = _neuron_problem(layer, neurons)
            _run_pruned_attention(layer, heads, neurons, states, problem)
            solve(index, "neurons", problem)
            for _, pruned_state in states:
                pruned = pruned_state.to(device)
                pruned_state.copy_(pruned + layer.feed_forward.output(_neurons(layer, pruned, neurons)))
    return masks


def _run_dense_layer(layer: Layer, heads: Tensor, states: list[_States], problem: "_Problem | None") -> None:
    """Take the dense states through a layer, and note what the heads of the pruned network have to reach."""
    device = heads.device
    for dense_state, pruned_state in states:
        dense, pruned = dense_state.to(device), pruned_state.to(device)
        attended = dense + layer.attention(layer.attention_norm(dense))
        if problem is not None:
            problem.add(_heads(layer, pruned, heads), attended - layer.attention.output.bias - pruned)
        dense_state.copy_(attended + layer.feed_forward(layer.feed_forward_norm(attended)))


def _run_pruned_attention(
    layer: Layer, heads: Tensor, neurons: Tensor, states: list[_States], problem: "_Problem | None"
) -> None:
    """Take the pruned states through a layer's attention, and note what its neurons have to reach."""
    device = heads.device
    for dense_state, pruned_state in states:
        pruned = pruned_state.to(device)
        pruned = pruned + layer.attention.output(_heads(layer, pruned, heads))
        if problem is not None:
            target = dense_state.to(device) - layer.feed_forward.output.bias - pruned
            problem.add(_neurons(layer, pruned, neurons), target)
        pruned_state.copy_(pruned)


def _hold(tokens: Tensor, folder: Path | None, name: str) -> Tensor:
    """A copy of `tokens` to be overwritten layer by layer, in memory or in a mapped file."""
    if folder is None:
        return tokens.clone()
    held = torch.from_file(str(folder / name), shared=True, size=tokens.numel(), dtype=tokens.dtype)
    return held.view_as(tokens).copy_(tokens)


def _heads(layer: Layer, tokens: Tensor, mask: Tensor) -> Tensor:
    mixed = layer.attention.mix(layer.attention_norm(tokens))
    return mixed * mask.repeat_interleave(layer.attention.head_width)


def _neurons(layer: Layer, tokens: Tensor, mask: Tensor) -> Tensor:
    return layer.feed_forward.activate(layer.feed_forward_norm(tokens)) * mask


def _head_problem(layer: Layer, mask: Tensor) -> "_Problem | None":
    columns = mask.repeat_interleave(layer.attention.head_width).nonzero().flatten()
    return _HeadProblem(layer.attention.output, columns, layer.attention.head_width) if len(columns) else None


def _neuron_problem(layer: Layer, mask: Tensor) -> "_Problem | None":
    columns = mask.nonzero().flatten()
    return _Problem(layer.feed_forward.output, columns) if len(columns) else None


class _Problem:
    """Normal equations of the factors of the `columns` of a linear layer, summed over batches in float64."""

    def __init__(self, linear: nn.Linear, columns: Tensor) -> None:
        self.columns = columns
        self.weight = linear.weight[:, columns].T
        size, double = len(columns), torch.float64
        self.activation_gram = torch.zeros(size, size, dtype=double, device=columns.device)
        self.moments = torch.zeros(size, dtype=double, device=columns.device)

    def add(self, activations: Tensor, target: Tensor) -> None:
        """Tokens with their activations (n, tokens, all units) and what the linear layer should give for them."""
        inputs = activations[..., self.columns].flatten(0, 1)
        self.activation_gram += inputs.T @ inputs
        self.moments += ((inputs.T @ target.flatten(0, 1)) * self.weight).sum(dim=1)

    def equations(self) -> NormalEquations:
        return NormalEquations(self.activation_gram * (self.weight @ self.weight.T), self.moments)


class _HeadProblem(_Problem):
    """The same with one factor a head of `width` columns, and one more for a constant column."""

    def __init__(self, linear: nn.Linear, columns: Tensor, width: int) -> None:
        super().__init__(linear, columns)
        self.width = width
        self.activation_sum = torch.zeros_like(self.moments)
        self.target_sum = torch.zeros_like(self.moments[:1])
        self.rows = 0

    def add(self, activations: Tensor, target: Tensor) -> None:
        super().add(activations, target)
        self.activation_sum += activations[..., self.columns].sum(dim=(0, 1))
        self.target_sum += target.sum()
        self.rows += target.numel()

    def equations(self) -> NormalEquations:
        gram, moments = super().equations()
        heads = len(moments) // self.width
        gram = gram.view(heads, self.width, heads, self.width).sum(dim=(1, 3))
        constant = (self.activation_sum * self.weight.sum(dim=1)).view(heads, self.width).sum(dim=1)
        corner = constant.new_full((1,), self.rows)
        gram = torch.cat([torch.cat([gram, constant[:, None]], dim=1), torch.cat([constant, corner])[None]])
        return NormalEquations(gram, torch.cat([moments.view(heads, self.width).sum(dim=1), self.target_sum]))
