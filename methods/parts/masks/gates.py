"""From scores to effective weights, in closed form and with their gradients.

Each function is one custom autograd step: it takes a weight tensor and its scores and returns what the layer
uses in place of the weight. Forward and backward are each a few elementwise passes; nothing is copied to the
host. What the backward pass needs and can be recomputed cheaply is recomputed, not saved, because the tensors
of large layers are what masks cost.

Gates are 0/1 tensors of the scores' data type: multiplying with them is several times faster on CPUs than
selecting with booleans, whose branches are as random as the masks.

Notation: w weight, s score, m gate, G the gradient that reaches the effective weight.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def open_gates(score: Tensor, threshold: Tensor | float, *, strict: bool = False) -> Tensor:
    """1 where the score reaches the threshold (with `strict`: exceeds it), else 0; in the scores' data type."""
    compare = torch.gt if strict else torch.ge
    if torch.compiler.is_compiling():
        return compare(score, threshold).to(score.dtype)
    with torch.no_grad():
        return compare(score, threshold, out=torch.empty_like(score))


def logistic_noise_(uniform: Tensor) -> Tensor:
    """Turn uniform numbers in [0, 1) into standard logistic ones, in place."""
    return uniform.logit_()


class GumbelGate(Function):
    """ASLP: a two-way Gumbel-softmax gate (Dupont et al. 2022), one logistic variable for two Gumbels.

    With L = threshold (logistic noise), y = sigmoid((s - L) / tau): hard gates are [s >= L], soft ones y, and
    both pass on the gradient of y: dL/ds = G w c y (1 - y) / tau. `scale` c is a 0-d tensor, or None for 1.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, score: Tensor, threshold: Tensor, scale: Tensor | None, tau: float, hard: bool
    ) -> Tensor:
        ctx.save_for_backward(weight, score, threshold, scale)
        ctx.tau, ctx.hard = tau, hard
        gate = open_gates(score, threshold) if hard else _relaxed(score, threshold, tau)
        effective = gate.mul_(weight)
        if scale is not None:
            effective.mul_(scale)
        return effective.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, score, threshold, scale = ctx.saved_tensors
        for_weight, for_score, _, for_scale = ctx.needs_input_grad[:4]
        grad = grad.to(score.dtype)
        grad_weight = grad_score = grad_scale = None
        if for_score:
            relaxed = _relaxed(score, threshold, ctx.tau)
            grad_score = _through_sigmoid(grad, relaxed, into=relaxed).mul_(weight)
            if scale is not None:
                grad_score.mul_(scale)
            if ctx.tau != 1:
                grad_score.div_(ctx.tau)
        if for_weight or for_scale:
            gate = open_gates(score, threshold) if ctx.hard else _relaxed(score, threshold, ctx.tau)
            gated = gate.mul_(grad)
            if for_scale:
                grad_scale = torch.dot(gated.flatten(), weight.to(score.dtype).flatten()).to(scale.dtype)
            if for_weight:
                grad_weight = (gated if scale is None else gated.mul_(scale)).to(weight.dtype)
        return grad_weight, grad_score, None, grad_scale, None, None


class BernoulliGate(Function):
    """Supermask: a Bernoulli(sigmoid(s)) gate (Zhou et al. 2019), optionally rescaled by entries / open gates.

    Open where s > threshold (logistic noise), which has probability sigmoid(s); dL/ds = G w p (1 - p) with
    p = sigmoid(s). With `rescale` the factor n/S, S = sum of m, is part of the graph:
    dL/ds_i = [(n/S) G_i w_i - (n/S^2) sum_j G_j w_j m_j] p_i (1 - p_i). A sample that is empty counts as S = 1.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, threshold: Tensor, rescale: bool) -> Tensor:
        gate = open_gates(score, threshold, strict=True)
        factor = rescale_factor(gate) if rescale else None
        ctx.save_for_backward(weight, score, threshold, factor)
        effective = gate.mul_(weight)
        if factor is not None:
            effective.mul_(factor)
        return effective.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, score, threshold, factor = ctx.saved_tensors
        for_weight, for_score = ctx.needs_input_grad[:2]
        grad = grad.to(score.dtype)
        grad_weight = grad_score = None
        if for_score:
            product = grad * weight
            if factor is not None:
                kept = torch.dot(product.flatten(), open_gates(score, threshold, strict=True).flatten())
                product.mul_(factor).sub_(kept * factor.square() / score.numel())
            grad_score = _through_sigmoid(product, torch.sigmoid(score), into=product)
        if for_weight:
            grad_weight = open_gates(score, threshold, strict=True).mul_(grad)
            if factor is not None:
                grad_weight.mul_(factor)
            grad_weight = grad_weight.to(weight.dtype)
        return grad_weight, grad_score, None, None


class StraightThroughGate(Function):
    """Edge-popup: a gate chosen by the magnitude of the scores (Ramanujan et al. 2020).

    `gate` is the 0/1 tensor. The gradient passes the choice as if it were the identity on |s|:
    dL/ds = G w sign(s) for all entries, open or not, with sign(0) = 0.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(weight, score, gate if ctx.needs_input_grad[0] else None)
        return (gate * weight).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, score, gate = ctx.saved_tensors
        for_weight, for_score = ctx.needs_input_grad[:2]
        grad = grad.to(score.dtype)
        grad_score = torch.sign(score).mul_(weight).mul_(grad) if for_score else None
        grad_weight = (gate * grad).to(weight.dtype) if for_weight else None
        return grad_weight, grad_score, None


class BinaryGate(Function):
    """Biprop: the kept weights as alpha sign(w), alpha the mean |w| of the kept (Diffenderfer and Kailkhura 2021).

    `gate` is the 0/1 tensor. The gradient passes the choice and alpha as edge-popup's does: dL/ds = G w sign(s).
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(weight, score)
        return binary_weight(weight, gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, score = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return None, None, None
        return None, torch.sign(score).mul_(weight).mul_(grad.to(score.dtype)), None


class SoftGate(Function):
    """Continuous Sparsification: the gate c sigmoid(beta s) (Savarese et al. 2020).

    Returns the effective weight and the 0-d sum of the gates, which is the layer's part of the penalty.
    dL/dw = m G, dL/ds = (G w + P) c beta q (1 - q) with q = sigmoid(beta s) and P the gradient that reaches the
    sum. `temperature` beta is a number or a 0-d tensor.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, score: Tensor, temperature: Tensor | float, ceiling: float
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.temperature = None if isinstance(temperature, Tensor) else temperature
        ctx.save_for_backward(weight, score, temperature if isinstance(temperature, Tensor) else None)
        ctx.ceiling = ceiling
        gate = (score * temperature).sigmoid_().mul_(ceiling)
        total = gate.sum()
        return gate.mul_(weight).to(weight.dtype), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, score, temperature = ctx.saved_tensors
        temperature = ctx.temperature if temperature is None else temperature
        for_weight, for_score = ctx.needs_input_grad[:2]
        grad_weight = grad_score = None
        relaxed = (score * temperature).sigmoid_()
        if for_score:
            at_gate = torch.zeros_like(score) if grad is None else grad.to(score.dtype) * weight
            if grad_total is not None:
                at_gate.add_(grad_total)
            grad_score = _through_sigmoid(at_gate, relaxed, into=at_gate).mul_(ctx.ceiling * temperature)
        if for_weight and grad is not None:
            grad_weight = relaxed.mul_(grad).mul_(ctx.ceiling).to(weight.dtype)
        return grad_weight, grad_score, None, None


class FixedGate(Function):
    """A gate that is not learned: w m `gain`, with the gradient G m `gain` for the weight and none for the gate.

    `keep` is boolean, one byte an entry, and is what is saved. `gain` is a number or a 0-d tensor.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, keep: Tensor, gain: Tensor | float) -> Tensor:
        ctx.gain = None if isinstance(gain, Tensor) else gain
        ctx.save_for_backward(keep, gain if isinstance(gain, Tensor) else None)
        return _gated(weight, keep, gain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        keep, gain = ctx.saved_tensors
        return _gated(grad, keep, ctx.gain if gain is None else gain), None, None


def binary_weight(weight: Tensor, gate: Tensor) -> Tensor:
    """sign(w) times the mean |w| where the 0/1 tensor `gate` is 1, else 0; an empty gate gives zeros."""
    kept = gate.to(weight.dtype)
    magnitude = (weight.abs() * kept).sum() / kept.sum().clamp_min(1)
    return weight.sign() * kept * magnitude


def rescale_factor(gate: Tensor) -> Tensor:
    """Entries / open gates, as a 0-d float32 tensor; an empty mask counts as one open gate."""
    # Counting floats is slow on CPUs, and so is summing booleans.
    kept = torch.count_nonzero(gate) if gate.dtype == torch.bool else gate.sum()
    return gate.numel() / kept.clamp_min(1).to(torch.float32)


def _gated(values: Tensor, keep: Tensor, gain: Tensor | float) -> Tensor:
    gated = keep.to(values.dtype).mul_(values)
    return gated if isinstance(gain, float) and gain == 1.0 else gated.mul_(gain)


def _relaxed(score: Tensor, threshold: Tensor, tau: float) -> Tensor:
    difference = score - threshold
    return (difference if tau == 1 else difference.div_(tau)).sigmoid_()


def _through_sigmoid(grad: Tensor, value: Tensor, *, into: Tensor) -> Tensor:
    """grad * value * (1 - value) in one pass, written into one of the two."""
    written = {} if torch.compiler.is_compiling() else {"grad_input": into}
    result: Tensor = torch.ops.aten.sigmoid_backward(grad, value, **written)
    return result
