"""What a network costs: parameters, zeros, multiply-accumulates, time and memory. Nothing here changes it."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from subnetbench.harness.evaluation.embed import require_evaluation_mode

_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def cost(
    module: nn.Module, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu", batch_size: int = 32
) -> dict[str, float]:
    """All costs of a network on `device` that sees images of `image_shape` (channels, height, width)."""
    return {
        **size_metrics(module),
        **mac_metrics(module, torch.zeros(1, *image_shape, device=device)),
        **time_metrics(module, image_shape, device=device, batch_size=batch_size),
    }


def prunable_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values of all convolution, linear and attention weights: no biases, norms or embeddings."""
    for name, part in module.named_modules():
        names: tuple[str, ...] = ()
        if isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
            names = ("weight",)
        elif isinstance(part, nn.MultiheadAttention):
            names = _ATTENTION_WEIGHTS
        for weight_name in names:
            weight = getattr(part, weight_name)
            if weight is not None:
                yield f"{name}.{weight_name}" if name else weight_name, weight.detach()


def layer_sparsities(module: nn.Module) -> dict[str, float]:
    """Share of exact zeros in every prunable weight, in [0, 1], by its name."""
    return {name: 1 - int(weight.count_nonzero()) / weight.numel() for name, weight in prunable_weights(module)}


def size_metrics(module: nn.Module) -> dict[str, float]:
    """`parameters`, `nonzero_parameters`, and `sparsity` over all prunable weights together (0 without any)."""
    parameters = list(module.parameters())
    weights = [weight for _, weight in prunable_weights(module)]
    total = sum(weight.numel() for weight in weights)
    kept = sum(int(weight.count_nonzero()) for weight in weights)
    return {
        "parameters": float(sum(p.numel() for p in parameters)),
        "nonzero_parameters": float(sum(int(p.count_nonzero()) for p in parameters)),
        "sparsity": 1 - kept / total if total else 0.0,
    }


def mac_metrics(module: nn.Module, image: torch.Tensor) -> dict[str, float]:
    """`macs_executed` and `macs_nonzero` of one forward pass of `image` (1, channels, height, width).

    Executed: what dense kernels do, padding included, counted by torch's formulas for convolutions, matrix products
    and attention (FLOP / 2); element-wise work, norms and pooling count nothing. Non-zero: the same, each
    operation scaled by the share of non-zero elements of the parameter it multiplies with; products of activations
    count in full. No kernel here skips zeros, so this is a bound for one that would.
    """
    require_evaluation_mode(module)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention has no formula; its parts have
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _MacCounter(module) as counter:
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return {"macs_executed": counter.executed / len(image), "macs_nonzero": counter.nonzero / len(image)}


class _MacCounter(TorchDispatchMode):
    """Adds up multiply-accumulates of all operations that torch has a FLOP formula for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.executed = self.nonzero = 0.0
        self._storages = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._storages |= {b.untyped_storage().data_ptr() for b in module.buffers()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        result = func(*args, **kwargs)
        if packet in flop_registry:
            macs = flop_registry[packet](*args, **kwargs, out_val=result) / 2
            self.executed += macs
            for operand in args:
                if isinstance(operand, torch.Tensor) and operand.ndim > 1 and self._is_parameter(operand):
                    macs *= int(operand.count_nonzero()) / operand.numel()
            self.nonzero += macs
        return result

    def _is_parameter(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._storages


def time_metrics(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    warm_up: int = 5,
    repetitions: int = 30,
    seconds: float = 5.0,
) -> dict[str, float]:
    """`latency_ms` (median) and `latency_ms_p95` at batch 1, `throughput` in images a second at `batch_size`.

    On CUDA also `peak_memory_bytes`, the most bytes allocated at `batch_size`, weights included; there is no such
    figure for the CPU. The module must be on `device` and in evaluation mode. Wall clock around single forward
    passes whose input is already on the device, the device synchronised before and after; `warm_up` passes are not
    counted. Each of the two batch sizes takes `repetitions` passes, or fewer (at least 3) once `seconds` are over.
    """
    device = torch.device(device)
    require_evaluation_mode(module)
    generator = torch.Generator().manual_seed(0)

    def sync() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def measure(size: int) -> np.ndarray:
        images = torch.randn(size, *image_shape, generator=generator).to(device)
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < warm_up + repetitions:
            enough = len(times) >= warm_up + 3
            if enough and time.perf_counter() - begin > seconds:
                break
            sync()
            start = time.perf_counter()
            module(images)
            sync()
            times.append(time.perf_counter() - start)
        return np.array(times[warm_up:])

    with torch.inference_mode():
        single = measure(1)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        batched = measure(batch_size)
    results = {
        "latency_ms": 1e3 * float(np.median(single)),
        "latency_ms_p95": 1e3 * float(np.quantile(single, 0.95)),
        "throughput": batch_size / float(np.median(batched)),
    }
    if device.type == "cuda":
        results["peak_memory_bytes"] = float(torch.cuda.max_memory_allocated(device))
    return results
