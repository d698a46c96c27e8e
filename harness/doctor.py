"""What this machine offers: versions, devices, search libraries, schedulers, folders."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from subnetbench.harness import environment


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    detail: str


def examine(data_root: Path) -> list[Finding]:
    """All findings; one that is not ok keeps something from working."""
    return [*_versions(), *_devices(), _faiss(), _slurm(), *_folders(data_root)]


def _versions() -> Iterator[Finding]:
    for name, number in environment.versions().items():
        yield Finding(name, True, number)


def _devices() -> Iterator[Finding]:
    yield Finding("CPU cores", True, str(os.cpu_count()))
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:
        yield Finding("torch", False, f"does not import: {error}")
        return
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:
        yield Finding("torchvision", False, "was built for another torch; install matching releases of the two")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("GPUs", True, ", ".join(gpus) or "none (runs use the CPU)")


def _faiss() -> Finding:
    flavours = []
    for package in ("faiss-cpu", "faiss-gpu-cu12"):
        try:
            flavours.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if len(flavours) > 1:
        return Finding("faiss", False, f"{' and '.join(flavours)} overwrite each other; uninstall both, install one")
    return Finding("faiss", True, flavours[0] if flavours else "not installed (exact search by torch)")


def _slurm() -> Finding:
    found = shutil.which("sbatch")
    return Finding("SLURM", True, found or "no sbatch found (runs stay on this machine)")


def _folders(data_root: Path) -> Iterator[Finding]:
    for name, path in (
        ("data root", data_root),
        ("results", Path("results")),
        ("temporary", Path(tempfile.gettempdir())),
    ):
        place = path
        while not place.exists():
            place = place.parent
        writable = os.access(place, os.W_OK)
        free = shutil.disk_usage(place).free / 1e9
        yield Finding(
            name, writable, f"{path.absolute()}, {'writable' if writable else 'read-only'}, {free:.0f} GB free"
        )
