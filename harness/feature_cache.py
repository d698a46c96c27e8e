"""Outputs of frozen networks, kept on disk: targets of distillation, galleries of teachers, levels of cascades.

A file is named by a digest of everything that its rows depend on: weights, architecture, preprocessing, data, and the
compute settings that bits depend on. It is written beside its place and renamed, so any number of runs may read and
write the same folder; two that need the same rows at once both compute them, and the bits are the same.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.data import Preprocessing, Split, digest_of
from subnetbench.harness.state_files import write_atomically

if TYPE_CHECKING:
    from subnetbench.harness.context import Context


def weights_digest(module: nn.Module, prefixes: Sequence[str] = ("",)) -> str:
    """Digest of the parameters and buffers whose names begin with one of `prefixes`, with names and dtypes."""
    state = {name: value for name, value in module.state_dict().items() if name.startswith(tuple(prefixes))}
    # bytes, since NumPy has no bfloat16
    return digest_of(*(part for name in sorted(state) for part in (name, str(state[name].dtype), _bytes(state[name]))))


def cached_outputs(context: "Context", module: nn.Module, preprocessing: Preprocessing, split: Split) -> Tensor:
    """`context.outputs` of a frozen network for a split of the context's data, from the cache where they are there."""
    key = (weights_digest(module), repr(module), repr(preprocessing), split.name, len(split))
    return cached_rows(context, key, lambda: context.outputs(module, preprocessing, split))


def cached_rows(context: "Context", key: Sequence[object], compute: Callable[[], Tensor]) -> Tensor:
    """Float32 rows (n, ...) on the context's device: from the cache, else what `compute` returns on every rank.

    `key` names what they are; the data and the compute settings of the context are added to it. All ranks must call
    this together, and all read or all compute.
    """
    if context.cache is None:
        return compute()
    compute_settings = context.spec.compute.model_dump_json()
    name = digest_of("features 1", context.data.digest, compute_settings, context.device.type, *key)
    path = context.cache / f"{name}.npy"
    rows = None
    if path.exists():
        try:
            rows = torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            rows = None  # a broken file is written anew
    # One rank may not see yet what another has written: computing gathers over ranks, so they must agree.
    if all(context.world.gather_objects(rows is not None)) and rows is not None:
        return rows.to(context.device)
    rows = compute()
    if context.world.is_main:
        content = io.BytesIO()
        np.save(content, rows.cpu().numpy(), allow_pickle=False)
        write_atomically(path, content.getvalue())
    return rows


def _bytes(tensor: Tensor) -> Tensor:
    if not tensor.numel():  # its strides may be anything, even such that it has no view as bytes
        return torch.empty(0, dtype=torch.uint8)
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
