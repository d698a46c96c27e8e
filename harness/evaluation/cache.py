"""Outputs of frozen networks, kept on disk: targets of distillation, galleries of teachers, levels of cascades.

A file is named by a digest of everything that its rows depend on: weights, architecture, preprocessing, data, and the
compute settings that bits depend on. It is written beside its path and renamed, so any number of runs may read and
write the same folder; two that need the same rows at once both compute them, and the bits are the same. Beside it is
what computing the rows took, so that a training that finds them here has spent the same as one that computes them
first and then finds them.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.core.files import read_json, write_atomically, write_json
from subnetbench.harness.core.hashing import digest_of
from subnetbench.harness.distributed.world import World
from subnetbench.harness.evaluation.executed import counted, note_rows


def weights_digest(module: nn.Module, prefixes: Sequence[str] = ("",)) -> str:
    """Digest of the parameters and buffers whose names begin with one of `prefixes`, with names and dtypes."""
    state = {name: value for name, value in module.state_dict().items() if name.startswith(tuple(prefixes))}
    # bytes, since NumPy has no bfloat16
    return digest_of(*(part for name in sorted(state) for part in (name, str(state[name].dtype), _bytes(state[name]))))


class FeatureCache:
    """Rows in `folder`, read and written by all ranks of `world` together."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder = folder
        self.world = world

    def rows(self, key: Sequence[object], compute: Callable[[], Tensor]) -> Tensor:
        """Float32 rows (n, ...) on the world's device: from the cache, else what `compute` returns on every rank.

        `key` names what they are: the digest of the data first, then whatever else they depend on.
        """
        world = self.world
        data, *others = key
        name = digest_of("features 1", data, world.compute.model_dump_json(), world.device.type, *others)
        path = self.folder / f"{name}.npy"
        rows, macs = _read(path), _read_macs(path)
        # One rank may not see yet what another has written: computing gathers over ranks, so they must agree.
        found = rows is not None and macs is not None
        if all(world.gather_objects(found)) and rows is not None and macs is not None:
            note_rows(name, macs if world.is_main else 0)
            return rows.to(world.device)
        with counted() as counter:
            rows = compute()
        note_rows(name)
        macs = sum(world.gather_objects(counter.total))
        if world.is_main:
            write_json(_macs_file(path), {"macs": macs})
            content = io.BytesIO()
            np.save(content, rows.cpu().numpy(), allow_pickle=False)
            write_atomically(path, content.getvalue())
        return rows


def _read(path: Path) -> Tensor | None:
    if not path.exists():
        return None
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None  # a broken file is written anew


def _macs_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_macs(path: Path) -> int | None:
    macs = (read_json(_macs_file(path)) or {}).get("macs")
    return macs if isinstance(macs, int) and macs >= 0 else None


def _bytes(tensor: Tensor) -> Tensor:
    if not tensor.numel():  # its strides may be anything, even such that it has no view as bytes
        return torch.empty(0, dtype=torch.uint8)
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
