"""What a network costs: parameters, zeros, multiply-accumulates, time and memory. Nothing here changes it."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from subnetbench.harness.evaluation.macs import mac_metrics
from subnetbench.harness.evaluation.outputs import require_evaluation_mode
from subnetbench.harness.evaluation.products import nonzeros, packed_biases, packed_tables, packed_weights

_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def cost(
    module: nn.Module, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu", batch_size: int = 32
) -> dict[str, float]:
    """All costs of a network on `device` that sees images of `image_shape` (channels, height, width).

    Raises `NotCounted` where its multiply-accumulates are not known.
    """
    return {
        **size_metrics(module),
        **mac_metrics(module, torch.zeros(1, *image_shape, device=device)),
        **time_metrics(module, image_shape, device=device, batch_size=batch_size),
    }


def prunable_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values, as they are used, of all convolution, linear, attention, recurrent and bilinear weights.

    Quantised ones are among them; biases, norms and embeddings are not. A masked weight has its zeros.
    """
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        for weight_name in _weight_names(part):
            weight = _as_used(part, weight_name)
            if weight is not None:
                yield f"{prefix}{weight_name}", weight.detach()
        for attribute, packed in _packed(part):
            for weight in packed_weights(packed):
                yield f"{prefix}{attribute}", weight


def size_metrics(module: nn.Module) -> dict[str, float]:
    """`parameters`, `nonzero_parameters`, and `sparsity` over all prunable weights together (0 without any).

    Quantised parameters count as such. Of a parameter under a mask or another parametrisation of its own shape, those
    are non-zero that are so where it is used.
    """
    used = {id(each): value for part in module.modules() for each, value in _parameters(part)}.values()
    packed = [packed for part in module.modules() for _, packed in _packed(part)]
    quantised = [each for one in packed for each in (*packed_weights(one), *packed_biases(one), *packed_tables(one))]
    weights = [weight for _, weight in prunable_weights(module)]
    total = sum(weight.numel() for weight in weights)
    kept = sum(nonzeros(weight) for weight in weights)
    return {
        "parameters": float(sum(each.numel() for each in (*used, *quantised))),
        "nonzero_parameters": float(sum(nonzeros(each) for each in (*used, *quantised))),
        "sparsity": 1 - kept / total if total else 0.0,
    }


def _weight_names(part: nn.Module) -> Sequence[str]:
    if isinstance(part, nn.modules.conv._ConvNd | nn.Linear | nn.Bilinear):
        return ("weight",)
    if isinstance(part, nn.MultiheadAttention):
        return _ATTENTION_WEIGHTS
    if isinstance(part, nn.RNNBase):
        return [name for name in part._flat_weights_names if name.startswith("weight")]
    return ("weight_ih", "weight_hh") if isinstance(part, nn.RNNCellBase) else ()


def _as_used(part: nn.Module, name: str) -> torch.Tensor | None:
    """A parameter by name; under a mask of `torch.nn.utils.prune`, what the next forward pass makes of it."""
    original, mask = getattr(part, f"{name}_orig", None), getattr(part, f"{name}_mask", None)
    if isinstance(original, torch.Tensor) and isinstance(mask, torch.Tensor):
        return original * mask
    found = getattr(part, name)
    return found if isinstance(found, torch.Tensor) else None


@torch.no_grad()
def _parameters(part: nn.Module) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    """The parameters of one module without its parts, each with what it is where it is used."""
    for name, parameter in part.named_parameters(recurse=False):
        used: torch.Tensor | None = parameter
        if name.endswith("_orig"):
            used = _as_used(part, name.removesuffix("_orig")) if hasattr(part, f"{name[:-5]}_mask") else parameter
        elif isinstance(part, ParametrizationList) and name == "original":
            used = part()
        yield parameter, used if used is not None and used.shape == parameter.shape else parameter


def _packed(part: nn.Module) -> Iterator[tuple[str, torch.ScriptObject]]:
    """Packed parameters of a quantised layer by the name of their attribute."""
    for name, value in vars(part).items():
        if isinstance(value, torch.ScriptObject):
            yield name, value


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
    number for the CPU. The module must be on `device` and in evaluation mode. Wall clock around single forward
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
