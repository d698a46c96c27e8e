"""Tensors of a module tree by dotted name, as `named_parameters` gives them."""

from typing import Any

from torch import Tensor, nn


def tensor_at(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name`, e.g. `layer1.0.conv1.weight`."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    result: Tensor = found
    return result


def put_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a parameter, or else a buffer, under `name`; modules on its path that are missing are made."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor)
