"""How numbers are computed, read back from torch once everything is set up: what was asked for may not be what is."""

from typing import TYPE_CHECKING

from subnetbench.harness.core.numerics import Numerics

if TYPE_CHECKING:
    import torch


def read_numerics(device: "torch.device", *, autocast: bool, processes: int, micro_batch: int | None) -> Numerics:
    """The settings of this process as torch has them now; call it inside the run's own mixed precision.

    Args:
        device: Where the run computes.
        autocast: Whether the run enters mixed precision; its type is then read from torch.
        processes: Ranks that came together.
        micro_batch: Most samples in one forward pass.
    """
    import torch

    with_type = torch.get_autocast_dtype(device.type) if autocast else None
    cuda = device.type == "cuda"
    return Numerics(
        device=device.type,
        autocast="" if with_type is None else str(with_type).removeprefix("torch."),
        matmul=torch.get_float32_matmul_precision(),
        convolution_tf32=cuda and bool(torch.backends.cudnn.allow_tf32),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        benchmark=cuda and bool(torch.backends.cudnn.benchmark),
        processes=processes,
        micro_batch=micro_batch,
    )
