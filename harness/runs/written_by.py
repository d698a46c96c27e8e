"""Whether a file of weights was written by this program, read from its header without torch."""

import json
import struct
from pathlib import Path

_LENGTH = struct.calcsize("<Q")
_MOST = 100_000_000
"""Bytes of a header, as safetensors itself allows."""


def is_own_file(path: Path) -> bool:
    """Whether a file is a state file of this program: safetensors whose header holds a `state`.

    Exports, which any program may load, are none.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(_LENGTH))
            header = json.loads(file.read(length)) if length <= _MOST else {}
    except (OSError, ValueError, struct.error, RecursionError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and "state" in metadata
