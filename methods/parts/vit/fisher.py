"""Post-training pruning of a ViT by Fisher information (Kwon et al. 2022, arXiv 2204.09656), in three stages.

1. `search_masks`: which heads and neurons to keep within a MAC budget, by the diagonal of the Fisher information.
2. `rearrange_masks`: within each layer, the same numbers chosen anew with the interaction of pruned units.
3. `fisher_tuning.tune_masks`: factors of the kept units, so that each layer comes close to the dense one.

The published search lets heads overrun the budget; `guard_budget=False` does so too.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.vit.macs import macs_per_head, macs_per_neuron
from subnetbench.methods.parts.vit.pruning import CalibrationGradients, Masks


class UnitCosts(NamedTuple):
    """MACs of one head and of one neuron of one layer."""

    head: int
    neuron: int

    @classmethod
    def of(cls, tokens: int, width: int, head_width: int) -> "UnitCosts":
        """The costs in a ViT of `width` channels with heads of `head_width`, for `tokens` with the class token."""
        return cls(macs_per_head(tokens, width, head_width), macs_per_neuron(tokens, width))

    def total(self, masks: Masks) -> int:
        """MACs of the layers under `masks`."""
        heads, neurons = (int((mask != 0).sum()) for mask in masks)
        return heads * self.head + neurons * self.neuron


def search_masks(information: Masks, costs: UnitCosts, capacity: float, *, guard_budget: bool = True) -> Masks:
    """Stage 1: masks of 0 and 1 that keep at most `capacity` of the MACs, with the largest total information.

    For every number of heads, the best ones of the whole network are taken and the rest of the budget is filled with
    the best neurons; layers may lose everything. Ties go to fewer heads, and to lower indices.

    Args:
        information: Fisher information of heads (layers, heads) and neurons (layers, neurons).
        costs: MACs of one head and of one neuron.
        capacity: Share of the layers' MACs to keep, above 0, to 1.
        guard_budget: False: numbers of heads that alone exceed the budget compete too, as published, and no heads at
            all is not considered.

    Raises:
        UserError: For another capacity.
    """
    if not 0 < capacity <= 1:
        raise UserError("is the fraction of MACs to keep", field="capacity", value=capacity, allowed="above 0, to 1")
    heads, neurons = (part.numel() for part in information)
    budget = capacity * (heads * costs.head + neurons * costs.neuron)
    orders, gains = [], []
    for part in information:
        flat = part.flatten().cpu().double().numpy()
        order = np.argsort(-flat, kind="stable")
        orders.append(order)
        gains.append(np.concatenate([[0.0], np.cumsum(flat[order])]))
    most = min(heads, math.floor(budget / costs.head)) if guard_budget else heads
    head_counts = np.arange(0 if guard_budget else 1, most + 1)
    neuron_counts = np.floor((budget - head_counts * costs.head) / costs.neuron).clip(0, neurons).astype(int)
    best = int(np.argmax(gains[0][head_counts] + gains[1][neuron_counts]))
    kept = (orders[0][: head_counts[best]], orders[1][: neuron_counts[best]])
    masks = []
    for part, indices in zip(information, kept, strict=True):
        mask = torch.zeros(part.numel())
        mask[torch.from_numpy(indices)] = 1
        masks.append(mask.view_as(part).to(part.device))
    return Masks(*masks)


def rearrange_masks(masks: Masks, gradients: CalibrationGradients) -> Masks:
    """Stage 2: layer by layer, prune as many heads and neurons as `masks` does, chosen by `rearrange`."""
    parts = []
    for mask, grads in zip(masks, gradients[:2], strict=True):
        rows = [rearrange(row.cpu().numpy(), grads[:, i].cpu().numpy()) for i, row in enumerate(mask)]
        parts.append(torch.from_numpy(np.stack(rows)).to(mask))
    return Masks(*parts)


def rearrange(mask: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """The mask (units,) of one layer that prunes as many units, with gradients (batches, units) added up.

    Starts from the units with least information; each further unit in ascending order joins the pruned set P, and
    the unit leaves it whose removal makes sum over batches of (sum of P's gradients)^2 smallest. That sum needs
    only the Gram matrix of the gradients, and an update of one vector for each move.
    """
    pruned_count = int((mask == 0).sum())
    if pruned_count in {0, len(mask)}:
        return mask
    gradients = gradients.astype(np.float64)
    gram = gradients.T @ gradients
    own = np.diagonal(gram)
    ascending = np.argsort(own, kind="stable")
    pruned = ascending[:pruned_count].copy()
    coupling = gram[:, pruned].sum(axis=1)
    for unit in ascending[pruned_count:]:
        coupling += gram[unit]
        # removing p changes the sum by own[p] - 2 coupling[p]; the newcomer leaves only if it is strictly best
        changes = own[pruned] - 2 * coupling[pruned]
        position = int(changes.argmin())
        if own[unit] - 2 * coupling[unit] < changes[position]:
            leaver = unit
        else:
            leaver = pruned[position]
            pruned = np.append(np.delete(pruned, position), unit)
        coupling -= gram[leaver]
    result = np.ones_like(mask)
    result[pruned] = 0
    return result
