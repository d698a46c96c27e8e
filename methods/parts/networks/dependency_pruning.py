"""Removal of whole channels through torch-pruning's dependency graph, which finds what has to be removed with them."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.networks.modes import in_evaluation_mode
from subnetbench.methods.parts.networks.taps import last_linear

Importance = Literal["group_norm", "random"]
MOST = 0.9
"""The largest share that one group of channels loses where all groups are compared."""


def remove_channels(
    network: nn.Module,
    image: Tensor,
    share: float,
    *,
    scope: Literal["global", "layer"],
    importance: Importance,
    generator: torch.Generator,
) -> None:
    """Remove channels, in place; what is left is an ordinary smaller network with as many outputs.

    Args:
        network: Of convolutions, linear layers and batch norms.
        image: One image (1, channels, height, width) on the network's device.
        share: Of the channels to remove, 0 to below 1.
        scope: `layer`: of each group of coupled channels; `global`: of all groups together, compared with each other, none of
            which loses more than `MOST`, or `share` where that is larger.
        importance: `group_norm`: the L2 norm of all weights of a channel in all layers of its group, divided by the mean of
            the group (Fang et al. 2023); `random`: by chance, from `generator`.

    Raises:
        UserError: torch-pruning is not installed, or cannot follow the network.
    """
    pruning = library()
    of_library = pruning.importance.GroupMagnitudeImportance(p=2)

    def chance(group: Any) -> Tensor:
        return torch.rand(len(group[0].idxs), generator=generator).to(image.device)

    try:
        with in_evaluation_mode(network), torch.enable_grad():
            pruning.pruner.BasePruner(
                network,
                image,
                importance=chance if importance == "random" else of_library,
                global_pruning=scope == "global",
                pruning_ratio=share,
                max_pruning_ratio=max(MOST, share) if scope == "global" else 1.0,
                ignored_layers=[network.get_submodule(last_linear(network))],
            ).step()
            network(image)
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        fault = f"its channels cannot be removed: {str(error) or type(error).__name__}"
        raise UserError(fault, field="network", value=type(network).__name__) from error
    for parameter in network.parameters():
        parameter.grad = None


def library() -> Any:
    """torch-pruning, an extra.

    Raises:
        UserError: It is not installed.
    """
    # late: an extra that only this needs
    try:
        import torch_pruning
    except ModuleNotFoundError:
        fault = "structured pruning needs torch-pruning: pip install 'subnetbench[pruning]'"
        raise UserError(fault, field="method", value="structured_pruning") from None
    return torch_pruning
