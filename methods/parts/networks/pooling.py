"""Global pooling of feature maps into descriptors, and the L2 normalisation that goes with it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from subnetbench.harness.method import unknown

EPSILON = 1e-6


def l2_normalise(vectors: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Rows of (..., d) divided by their length plus `epsilon`.

    The epsilon is added to the norm, not to its square, so results are shorter than 1 by about epsilon / norm. Half
    precision is raised to float32.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    result: Tensor = vectors / (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) + epsilon)
    return result


class MaxPool(nn.Module):
    """MAC (Tolias, Sicre and Jegou, 2016): the maximum of each channel. (n, c, h, w) to (n, c)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.amax(dim=(-2, -1))


class AveragePool(nn.Module):
    """SPoC (Babenko and Lempitsky, 2015): the mean of each channel. (n, c, h, w) to (n, c)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(-2, -1))


class GeneralisedMeanPool(nn.Module):
    """GeM (Radenovic, Tolias and Chum, 2018): mean(max(x, epsilon)^p)^(1/p). (n, c, h, w) to (n, c).

    The exponent `p` is learned; with `channels` there is one for each of them (GeMmp), else one for all. Powers
    are taken in float32 at least, since half precision overflows there.
    """

    def __init__(self, channels: int = 1, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((channels,), p))

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.to(torch.promote_types(maps.dtype, self.p.dtype)).clamp(min=EPSILON)
        return maps.pow(self.p.view(-1, 1, 1)).mean(dim=(-2, -1)).pow(1 / self.p)

    def extra_repr(self) -> str:
        return f"channels={self.p.numel()}"


_POOLS: dict[str, Callable[[int], nn.Module]] = {
    "gem": lambda channels: GeneralisedMeanPool(),
    "gemmp": GeneralisedMeanPool,
    "mac": lambda channels: MaxPool(),
    "spoc": lambda channels: AveragePool(),
    "no_pool": lambda channels: nn.Flatten(),
}
POOLINGS = tuple(_POOLS)


def make_pool(name: str, channels: int) -> nn.Module:
    """The pooling called `name` for maps of `channels` channels; `no_pool` only flattens."""
    if name not in _POOLS:
        raise unknown("pooling", name, POOLINGS)
    return _POOLS[name](channels)
