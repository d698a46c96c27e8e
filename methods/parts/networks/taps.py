"""Inner outputs of a network that was written without offering them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from subnetbench.harness.method import UserError, nearest


def last_linear(network: nn.Module) -> str:
    """The name of a classifier's last linear layer, whose input are its penultimate features.

    Raises:
        UserError: The network has none.
    """
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise UserError(
            "has no linear layer, so no penultimate features", field="network", value=type(network).__name__
        )
    return names[-1]


def middle_convolution(network: nn.Module) -> str:
    """The name of the convolution in the middle of a network's list of them (of 2k, the first of the second half).

    Raises:
        UserError: The network has none.
    """
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if not names:
        raise UserError("has no convolution; name a layer", field="network", value=type(network).__name__)
    return names[len(names) // 2]


def check_layer(network: nn.Module, name: str, field: str) -> str:
    """`name`, if a module of the network is called so.

    Raises:
        UserError: None is; names `field` and the nearest name.
    """
    known = [each for each, _ in network.named_modules() if each]
    if name not in known:
        guess = nearest(name, known)
        raise UserError(
            "there is no such layer" + (f"; did you mean {guess!r}?" if guess else ""), field=field, value=name
        )
    return name


@contextmanager
def tapped(
    network: nn.Module, *, inputs: Iterable[str] = (), outputs: Iterable[str] = ()
) -> Iterator[dict[str, Tensor]]:
    """Within the block, the forward passes of `network` leave what goes into or comes out of the named layers.

    Args:
        network: The network, which is left as it was.
        inputs: Layers whose first input is kept.
        outputs: Layers whose output is kept.

    Yields:
        Tensors by layer, of the latest pass, with gradient where the pass has one.
    """
    kept: dict[str, Tensor] = {}

    def keep_input(name: str) -> Any:
        return lambda module, arguments: kept.__setitem__(name, arguments[0])

    def keep_output(name: str) -> Any:
        return lambda module, arguments, result: kept.__setitem__(name, result)

    handles = [network.get_submodule(name).register_forward_pre_hook(keep_input(name)) for name in inputs]
    handles += [network.get_submodule(name).register_forward_hook(keep_output(name)) for name in outputs]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
