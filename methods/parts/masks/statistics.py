"""How sparse a masked or pruned network is, per layer and in total, counted from actual zeros."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from subnetbench.methods.parts.masks.masked_model import MaskedModel


@dataclass(frozen=True)
class MaskStatistics:
    """Shares of the masked weights of a layer, or of all layers together (biases and unmasked layers apart).

    pruned_fraction: zeros among the final effective weights.
    expected_keep: mean probability (for soft gates: mean openness) of being kept during the search.
    sampled_keep: what one sample keeps. undecided: scores that are exactly 0, which no gradient has reached.
    A statistic that the method does not have is None.
    """

    entries: int
    pruned_fraction: float
    expected_keep: float | None = None
    sampled_keep: float | None = None
    undecided: float | None = None


@torch.no_grad()
def mask_statistics(masked: MaskedModel) -> tuple[MaskStatistics, dict[str, MaskStatistics]]:
    """Statistics of all masked weights together, and by parameter name; one sample is taken as in a forward pass."""
    final = masked.effective_weights("final").weights
    sample = masked.effective_weights("search").weights if masked.mask.samples else {}
    layers = {}
    for name in masked.names:
        score, probability = masked.score(name), masked.mask.keep_probability(masked.score(name))
        layers[name] = MaskStatistics(
            entries=score.numel(),
            pruned_fraction=zero_share(final[name]),
            expected_keep=None if probability is None else probability.double().mean().item(),
            sampled_keep=1 - zero_share(sample[name]) if sample else None,
            undecided=zero_share(score) if masked.mask.learns_scores else None,
        )
    return _together(layers.values()), layers


def zero_share(values: Tensor) -> float:
    """The share of entries that are exactly 0 (or -0)."""
    return int(torch.count_nonzero(values == 0)) / values.numel()


def _together(layers: Iterable[MaskStatistics]) -> MaskStatistics:
    layers = list(layers)
    entries = sum(layer.entries for layer in layers)

    def mean(name: str) -> float | None:
        values = [getattr(layer, name) for layer in layers]
        if None in values:
            return None
        result: float | None = sum(value * layer.entries for value, layer in zip(values, layers, strict=True)) / entries
        return result

    pruned = mean("pruned_fraction")
    assert pruned is not None
    return MaskStatistics(entries, pruned, mean("expected_keep"), mean("sampled_keep"), mean("undecided"))
