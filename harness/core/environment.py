"""What a run's scores depend on besides its spec: versions, code, machine. Recorded, never guessed later."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "subnetbench",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "pytorch-metric-learning",
    "transformers",
    "open_clip_torch",
)
_ROOT = Path(__file__).resolve().parents[2]


@cache
def versions() -> dict[str, str]:
    """Installed versions of what scores depend on, with Python's."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_state() -> tuple[str, bool]:
    """The commit of the source tree (empty for an installed package), and whether files differ from it."""
    if not (_ROOT / ".git").exists():
        return "", False
    try:
        sha = _git("rev-parse", "HEAD")
        return sha, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def usable_cpus() -> int:
    """CPU cores that this process may use: those of its affinity mask, at most its control group's quota; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


def _quotas() -> list[int]:
    """Whole cores by the CPU quota of the control groups of this process (version 2), where there is one."""
    root = Path("/sys/fs/cgroup")
    found = []
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        group = root / own.lstrip("/")
        for folder in (group, *group.parents):
            if root in (folder, *folder.parents) and (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
                found += [] if quota == "max" else [-(-int(quota) // int(period))]
    except (OSError, StopIteration, ValueError):
        pass
    return found


def slurm_state() -> tuple[str, int]:
    """The SLURM job of this process (empty outside SLURM), and how often it was queued again."""
    return os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0)


def host() -> str:
    return socket.gethostname()


def device_name(device: Any) -> str:
    """The model of a torch device, e.g. the GPU's or the CPU's name."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name()


@cache
def cpu_name() -> str:
    """The model of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def driver_version() -> str:
    """Version of the GPU driver; empty where there is none."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
    return next((word for word in first.split() if word[0].isdigit() and "." in word), first)


def cudnn_version() -> str:
    """Version of cuDNN that torch has loaded; empty where there is none."""
    import torch

    found: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return str(found or "")
