"""Evaluating a stochastic mask: plain networks made of samples, or a network that samples as it goes."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.masks.masked_model import MaskedModel


class SampledEveryBatch(nn.Module):
    """A masked network that draws a new mask in every forward pass, as the published evaluations do."""

    def __init__(self, masked: MaskedModel, generator: torch.Generator) -> None:
        super().__init__()
        self.masked = masked
        self._generator = generator

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.masked.draw(self._generator)
        return self.masked.call(self.masked.effective_weights("search").weights, *args, **kwargs)


def sampled_networks(
    masked: MaskedModel, generators: Iterable[torch.Generator], new_mask: Literal["pass", "batch"] = "pass"
) -> Iterator[nn.Module]:
    """One network in evaluation mode for each generator; their scores are the K-sample evaluation.

    "pass": a plain network, one sampled subnetwork for all batches. "batch": a new subnetwork for every batch.
    """
    if new_mask not in ("pass", "batch"):
        raise UserError("unknown choice", field="new_mask", value=new_mask, allowed="pass, batch")
    for generator in generators:
        if new_mask == "batch":
            yield SampledEveryBatch(masked, generator).eval()
        else:
            masked.draw(generator)
            yield masked.finalise(masked.effective_weights("search").weights).eval()
