"""Networks whose layers take the shapes of the weights that are loaded into them, once channels have been removed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError

BatchNorm = nn.modules.batchnorm._BatchNorm


class ResizableNetwork(nn.Module):
    """`network`, as it is, but for loading: its layers first get the shapes of the tensors in the state.

    So a network that lost channels in training is built at full size and loaded like any other. Layers are convolutions,
    linear layers and batch norms.

    Raises:
        UserError: Another layer has weights of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, module in network.named_modules():
            own = next(module.parameters(recurse=False), None)
            if own is not None and not isinstance(module, nn.Conv2d | nn.Linear | BatchNorm):
                fault = f"has a layer whose channels cannot be removed: {name} ({type(module).__name__})"
                raise UserError(fault, field="network", allowed="convolutions, linear layers and batch norms")
        self.network = network
        self.register_load_state_dict_pre_hook(_resize)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.network(images)
        return result


def _resize(wrapper: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    for name, module in wrapper.named_modules():
        path = f"{prefix}{name}." if name else prefix
        for kind, present in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            loaded = state.get(f"{path}{kind}")
            if loaded is None or loaded.shape == present.shape:
                continue
            empty = torch.empty(loaded.shape, dtype=present.dtype, device=present.device)
            setattr(module, kind, nn.Parameter(empty) if isinstance(present, nn.Parameter) else empty)
        _say_its_size(module)


def _say_its_size(module: nn.Module) -> None:
    """Let a layer's own account of its channels follow from its weights."""
    if isinstance(module, nn.Conv2d):
        if module.groups == module.in_channels > 1:
            module.groups = len(module.weight)
        module.out_channels, module.in_channels = len(module.weight), module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, BatchNorm) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
