"""Nested states (dictionaries, lists, tensors, numbers, texts) in one safetensors file, written atomically.

Tensors are stored as such; everything else is JSON in the file's header. Loading builds nothing but these
types, so a checkpoint from anywhere is safe to open. A file is complete or absent: it is written beside its
final path, flushed to disk and renamed.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.files import write_atomically

_TENSOR = "$tensor"
_KEYS = "$items"


class BrokenStateFile(SubnetbenchError):
    """A state file that is truncated, or not a state file at all."""


def save_state(path: Path, state: Any) -> None:
    """Write `state` to `path`; whatever was there stays until the new file is complete."""
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _flatten(state, "", tensors)
    write_atomically(path, save(tensors, metadata={"state": json.dumps(skeleton, allow_nan=True)}))


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """The state in `path`. Raises `FileNotFoundError`, or `BrokenStateFile` when it cannot be read."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            skeleton = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _unflatten(skeleton, tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BrokenStateFile(f"{path} is truncated or not a state file of subnetbench: {error}") from None


def read_header(path: Path) -> dict[str, Any]:  # open: what a caller stored, tensors left out
    """The top level of a state file as plain JSON, without reading a tensor; empty where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads((file.metadata() or {})["state"])
        return {key: _plain(value) for key, value in skeleton[_KEYS]}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _plain(value: Any) -> Any:
    """What `_flatten` made of a value without tensors; None for a tensor."""
    if isinstance(value, dict):
        return None if _TENSOR in value else {key: _plain(item) for key, item in value[_KEYS]}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _flatten(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(value, dict):
        # Pairs, because JSON would turn integer keys (optimizer states) into texts.
        return {_KEYS: [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path or 'state'}: a {type(value).__name__} cannot be saved in a state file")


def _unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _unflatten(item, tensors) for key, item in value[_KEYS]}
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    return value
