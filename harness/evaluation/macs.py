"""Multiply-accumulates of a forward pass, counted operation by operation; what cannot be counted is named."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.evaluation.outputs import require_evaluation_mode
from subnetbench.harness.evaluation.products import (
    Product,
    is_free,
    looks_like_a_product,
    nonzeros,
    packed_weights,
    products_of,
)

_NAMED = 5


class NotCounted(SubnetbenchError):
    """A network does work that no formula counts; `operations` are the names of what does it, and where."""

    def __init__(self, operations: tuple[str, ...]) -> None:
        self.operations = operations
        more = f" and {len(operations) - _NAMED} more" if len(operations) > _NAMED else ""
        super().__init__(f"multiply-accumulates are not known of {', '.join(operations[:_NAMED])}{more}")


def mac_metrics(module: nn.Module, image: torch.Tensor) -> dict[str, float]:
    """`macs_executed` and `macs_nonzero` of one forward pass of `image` (1, channels, height, width).

    Executed: what dense kernels do, padding included: convolutions, matrix products, attention, recurrent and bilinear
    layers, quantised ones too; element-wise work, norms and pooling count nothing. Non-zero: the same, each operation
    scaled by the share of non-zero elements of the weight it multiplies with, as it is when it multiplies: masked,
    parametrised, or quantised. Products of activations count in full. No kernel here skips zeros, so this is a bound
    for one that would.

    Raises:
        NotCounted: An operation multiplies with a weight, or is a product by its name, and has no formula; or a layer
            ran whose matrices no operation was seen to use.
        ValueError: Part of the module is in training mode.
    """
    require_evaluation_mode(module)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention has no formula; its parts have
    try:
        counter = _MacCounter(module, image)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter.watching(), counter:
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    unknown = counter.not_counted()
    if unknown:
        raise NotCounted(unknown)
    return {"macs_executed": counter.executed / len(image), "macs_nonzero": counter.nonzero / len(image)}


class _MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the operations of a forward pass multiply.

    A tensor is data when it depends on the image, a constant when the pass made it of nothing that was there before
    (a first hidden state of zeros), and else a weight: a parameter or what became of one under a mask.
    """

    def __init__(self, module: nn.Module, image: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.executed = self.nonzero = 0.0
        self._module = module
        self._names = {id(part): name for name, part in module.named_modules()}
        self._stack: list[nn.Module] = []
        self._ran: dict[int, nn.Module] = {}
        self._data: dict[int, StorageWeakRef] = {}
        self._constant: dict[int, StorageWeakRef] = {}
        self._used: set[int] = set()
        self._unknown: dict[str, None] = {}
        self._remember(self._data, image)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Know which part of the module is running."""

        def enter(part: nn.Module, _: Any) -> None:
            self._stack.append(part)
            self._ran[id(part)] = part

        def leave(*_: Any) -> None:
            self._stack.pop()

        with ExitStack() as hooks:
            hooks.callback(register_module_forward_pre_hook(enter).remove)
            hooks.callback(register_module_forward_hook(leave, always_call=True).remove)
            yield

    def not_counted(self) -> tuple[str, ...]:
        """What no formula counts, in words: operations, and layers whose matrices nothing was seen to use.

        Only modules without parts: others may keep tables that an earlier pass has turned into what this one uses.
        """
        idle = [
            f"{name} of {self._name(part)}"
            for part in self._ran.values()
            if next(part.children(), None) is None
            for name, weight in part.named_parameters(recurse=False)
            if sum(side > 1 for side in weight.shape) > 1 and _storage(weight) not in self._used
        ]
        return (*self._unknown, *idle)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,  # open: torch's signature
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        result = func(*args, **kwargs)
        operands = list(_tensors((args, kwargs)))
        weights = [operand for operand in operands if self._is_weight(operand)]
        self._count(func, args, kwargs, result, weights)
        self._follow(operands, weights, result)
        return result

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any, weights: list[torch.Tensor]) -> None:
        if not func.is_view:
            self._used |= {_storage(weight) for weight in weights}
        odd = any(operand.layout is not torch.strided for operand in _tensors((args, kwargs)))
        products = None if odd else products_of(func, args, kwargs, result)
        if products is not None:
            for product in products:
                self._add(product)
        elif not is_free(func) or (odd and not func.is_view):
            matrices = any(weight.ndim > 1 for weight in weights) or any(map(packed_weights, args))
            if matrices or odd or looks_like_a_product(func):
                part = f" in {self._name(self._stack[-1])}" if self._stack else ""
                self._unknown[f"{func._overloadpacket}{part}"] = None

    def _add(self, product: Product) -> None:
        self.executed += product.macs
        share = 1.0
        for operand in product.operands:
            if product.packed or self._is_weight(operand):
                share *= nonzeros(operand) / max(operand.numel(), 1)
        self.nonzero += product.macs * share

    def _follow(self, operands: list[torch.Tensor], weights: list[torch.Tensor], result: Any) -> None:
        """Remember what the results depend on."""
        is_data = any(_storage(operand) in self._data for operand in operands)
        for tensor in _tensors(result):
            if is_data:
                self._remember(self._data, tensor)
            elif weights:
                self._constant.pop(_storage(tensor), None)
            elif _storage(tensor) not in self._data:
                self._remember(self._constant, tensor)

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        storage = _storage(tensor)
        return storage not in self._data and storage not in self._constant

    def _name(self, part: nn.Module) -> str:
        return f"{self._names.get(id(part), '') or 'the network'} ({type(part).__name__})"

    @staticmethod
    def _remember(where: dict[int, StorageWeakRef], tensor: torch.Tensor) -> None:
        """A weak reference keeps the storage's address from being given to another one."""
        if tensor.layout is torch.strided:
            reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
            where[reference.cdata] = reference


def _storage(tensor: torch.Tensor) -> int:
    """What identifies a tensor's memory; tensors without a storage are known by themselves."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else id(tensor)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
