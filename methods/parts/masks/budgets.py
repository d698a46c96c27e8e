"""How many weights of each layer remain at a sparsity of the whole network: the same share, or by Erdos-Renyi-Kernel."""

import math
from collections.abc import Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]
"""Shapes of weights by name: (outputs, inputs) or (outputs, inputs, height, width)."""


def kept_by_share(shapes: Shapes, sparsity: float) -> dict[str, int]:
    """Of the n weights of each layer round(sparsity n) are removed (halves to the even number)."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return {name: size - round(sparsity * size) for name, size in sizes.items()}


def kept_by_erk(shapes: Shapes, sparsity: float) -> dict[str, int]:
    """The weights that `erk_densities` leave of each layer, N - round(sparsity N) of the N weights together.

    Shares are rounded down, and what is missing goes to the layers with the largest remainders.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    densities = erk_densities(shapes, 1 - sparsity)
    wanted = {name: densities[name] * size for name, size in sizes.items()}
    counts = {name: min(math.floor(share), sizes[name]) for name, share in wanted.items()}
    missing = total - round(sparsity * total) - sum(counts.values())
    by_remainder = sorted(sizes, key=lambda name: counts[name] - wanted[name])
    while missing > 0:
        for name in by_remainder:
            if missing > 0 and counts[name] < sizes[name]:
                counts[name] += 1
                missing -= 1
    return counts


def erk_densities(shapes: Shapes, density: float) -> dict[str, float]:
    """Share of each layer's weights that remains by Erdos-Renyi-Kernel (Evci et al. 2020, arXiv 1911.11134, section 3).

    Proportional to (sum of the dimensions) / (product of the dimensions), so that small layers stay denser. Layers for
    which that exceeds 1 stay dense, and the others share what is left.

    Args:
        shapes: Of all layers.
        density: Share of all weights together that remains, 0 to 1.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    ratios = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    left, sparse = density * sum(sizes.values()), dict(ratios)
    while sparse:
        scale = left / sum(ratios[name] * sizes[name] for name in sparse)
        full = [name for name in sparse if scale * ratios[name] > 1]
        if not full:
            break
        for name in full:
            del sparse[name]
            left -= sizes[name]
    return {name: scale * ratios[name] if name in sparse else 1.0 for name in shapes}
