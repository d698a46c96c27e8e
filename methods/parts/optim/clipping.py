"""Clipping of given gradients by their total norm, for steps that combine several of them before `.grad` is set."""

from collections.abc import Sequence

import torch
from torch import Tensor


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm over all elements of all tensors, a scalar on their device; 0 for no tensors."""
    if not tensors:
        return torch.zeros(())
    result: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
    return result


def scale_to_norm(tensors: Sequence[Tensor], norm: Tensor, limit: float) -> None:
    """Multiply the tensors, whose total norm counts as `norm`, by min(1, limit / (norm + 1e-6)), in place."""
    # On a GPU asking whether there is anything to do would wait for it.
    if tensors and not (norm.is_cpu and norm + 1e-6 <= limit):
        torch._foreach_mul_(list(tensors), (limit / (norm + 1e-6)).clamp(max=1.0))


def clip_in_place(tensors: Sequence[Tensor], limit: float) -> Tensor:
    """Scale the tensors to a total norm of at most `limit`; the norm before that is returned."""
    norm = total_norm(tensors)
    scale_to_norm(tensors, norm, limit)
    return norm
