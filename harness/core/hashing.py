"""Content hashes: of JSON values, of files, and of arrays and tensors. All are SHA-256, shortened where named."""

import hashlib
import json
from pathlib import Path

SHORT_DIGITS = 16
"""Hex digits of a shortened digest, unless a name asks for fewer."""


def content_hash(value: object, digits: int, *, strict: bool = True) -> str:
    """The first hex digits of the SHA-256 of a value's canonical JSON.

    Raises:
        ValueError, TypeError: with `strict`, for what JSON does not know (see `canonical_json`).
    """
    return text_hash(canonical_json(value, strict=strict), digits)


def canonical_json(value: object, *, strict: bool = True) -> str:
    """One text for each value: keys in order, no white space.

    With `strict`, infinities and NaN raise `ValueError` and foreign objects `TypeError`; else the former are written
    by Python's names and the latter as their `str`.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=not strict, default=None if strict else str
    )


def text_hash(text: str, digits: int = SHORT_DIGITS) -> str:
    """The first hex digits of the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, all 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(*parts: object) -> str:
    """A short content digest (16 hex digits) of arrays, tensors, strings and plain numbers."""
    import numpy as np
    import torch

    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().contiguous().numpy()
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype.str}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        else:
            sha.update(repr(part).encode())
        sha.update(b"\x1e")
    return sha.hexdigest()[:SHORT_DIGITS]
