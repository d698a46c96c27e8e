import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")

STEPS = """
import ctypes, resource, sys
from subnetbench.harness.distributed.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def step(size=100_000_000):
    block = ctypes.c_void_p(libc.malloc(size))
    libc.memset(block, 1, size)
    libc.free(block)

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 100_000_000)
"""


def steps(choice, **variables):
    """What `keep_freed_memory` said, and how much fresh memory five steps of a process touched, in steps."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-P", "-c", STEPS, choice]
    done = subprocess.run(command, env=clean | variables, capture_output=True, text=True, check=True)
    kept, touched = done.stdout.split()
    return kept, float(touched)


def test_freed_memory_is_used_again():
    assert steps("leave")[1] > 4
    kept, touched = steps("keep")
    assert kept == "True"
    assert touched < 0.1


def test_settings_of_the_user_stand():
    kept, touched = steps("keep", MALLOC_TRIM_THRESHOLD_="100000")
    assert kept == "False"
    assert touched > 4
