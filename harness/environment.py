"""What a run's figures depend on besides its spec: versions, code, machine. Recorded, never guessed later."""

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
_ROOT = Path(__file__).resolve().parent.parent


@cache
def versions() -> dict[str, str]:
    """Installed versions of what figures depend on, with Python's."""
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
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
