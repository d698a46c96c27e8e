"""How this process gets its memory from the operating system."""

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of glibc's malloc.h


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for what is allocated next; whether it does.

    glibc maps every large block afresh and gives it back when it is freed. A training step on the CPU frees all its
    activations, the next one needs as much, and touching a page for the first time costs more than many layers
    take to fill it. The process grows to its peak and stays there. Another C library is left as it is, and so is one
    that the user has set up through `MALLOC_*` variables or `GLIBC_TUNABLES`.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
