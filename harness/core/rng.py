"""Random streams: every draw is a function of the run's seed and of what it is for, never of history.

There is no generator whose state would have to be saved. A stream is named by its purpose (`init`, `split`,
`order`, `augmentation`, `masks`) and by counters (stage, epoch, step, sample), so a resumed run draws what the
uninterrupted one would have drawn, and runs on different numbers of processes see the same data.
"""

import hashlib
from typing import Literal

import numpy as np
import torch

Purpose = Literal["init", "split", "order", "augmentation", "masks", "noise", "mining", "evaluation"]

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, purpose: Purpose, *counters: int | str) -> int:
    """A 64-bit key that is different for every purpose and every tuple of counters."""
    text = "\x1f".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def numpy_generator(seed: int, purpose: Purpose, *counters: int | str) -> np.random.Generator:
    """A NumPy generator for one purpose, e.g. `numpy_generator(seed, "order", stage, epoch)`."""
    return np.random.Generator(np.random.PCG64(stream_key(seed, purpose, *counters)))


def torch_generator(
    seed: int, purpose: Purpose, *counters: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator for one purpose; on `device`, since CPU and CUDA generators differ."""
    generator = torch.Generator(device=device)
    generator.manual_seed(stream_key(seed, purpose, *counters) & 0x7FFF_FFFF_FFFF_FFFF)
    return generator


def seed_global_torch(seed: int, purpose: Purpose, *counters: int | str) -> None:
    """Seed torch's global generators, which dropout and default initialisers use."""
    torch.manual_seed(stream_key(seed, purpose, *counters) & 0x7FFF_FFFF_FFFF_FFFF)


def sample_uniforms(key: int, samples: np.ndarray, draws: int) -> np.ndarray:
    """Uniform numbers that belong to samples, not to their position in a batch.

    `samples` are integer sample ids of shape (n,). Returns float64 of shape (n, draws) in [0, 1). Row i depends
    only on `key` and `samples[i]` (SplitMix64 over the pair; Steele, Lea and Flood 2014), so batches may be cut,
    ordered and spread over processes at will.
    """
    with np.errstate(over="ignore"):
        base = _mix(samples.astype(np.uint64) * _GOLDEN_GAMMA + np.uint64(key & 0xFFFF_FFFF_FFFF_FFFF))
        counters = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN_GAMMA
        bits = _mix(base[:, None] + counters[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    result: np.ndarray = value ^ (value >> np.uint64(31))
    return result
