"""Rewinding: weights as they were at an earlier epoch of training."""

from torch import Tensor, nn


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers as they are now, which later steps do not change."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
