"""Straight-through gradients of one weight tensor in closed form, which training computes for whole networks."""

from torch import Tensor


def straight_through(gradient: Tensor, weight: Tensor, score: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and score from the gradient with respect to mask * weight, all of one shape.

    The score's is the straight-through one, with the mask's derivative taken as that of |score|; it is not masked.
    """
    return gradient * mask, gradient * weight * score.sign()
